import { h } from 'vue'
import Theme from 'vitepress/theme'
import Versions from './Versions.vue'

export default {
  extends: Theme,
  Layout: () => h(Theme.Layout, null, { 'nav-bar-content-after': () => h(Versions), 'nav-screen-content-after': () => h(Versions) }),
}
