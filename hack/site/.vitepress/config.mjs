// The site has the pages of docs/ as they are, and README.md's of directories as their first pages. Links work on code forges too, so they
// are translated here: those to files outside of docs/ lead to the repository. build.sh puts this directory and docs/ side by side.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const docs = fileURLToPath(new URL('../docs', import.meta.url))
const version = process.env.SITE_VERSION
const repository = 'https://github.com/kidoban/kidoban'

const read = file => readFileSync(path.join(docs, file), 'utf8')

// slug is the anchor that GitHub gives a heading; hack/docs checks links against the same rule.
function slug(text) {
  return text.trim().toLowerCase().replace(/[^\p{L}\p{N}\p{M} _-]/gu, '').replaceAll(' ', '-')
}

// title of a page is its first heading.
const title = file => /^# (.*)$/m.exec(read(file))?.[1].replaceAll('`', '') ?? file

// sidebar lists the tables of a directory's README.md: a group for each heading, a page for each link in a first column.
function sidebar() {
  const groups = []
  for (const line of read('README.md').split('\n')) {
    const heading = /^## (.*)$/.exec(line)
    if (heading) groups.push({ text: heading[1], items: [], collapsed: false })
    if (!line.startsWith('|')) continue
    for (const [, target] of line.split('|')[1].matchAll(/\]\(([^)#]*\.md)\)/g)) {
      if (target.startsWith('..')) continue
      const item = { text: title(target), link: '/' + target.replace(/README\.md$/, '').replace(/\.md$/, '') }
      if (target === 'cli/README.md') {
        item.collapsed = true
        item.items = commands().map(name => ({ text: name, link: '/cli/' + name }))
      }
      groups.at(-1).items.push(item)
    }
  }
  return groups
}

const commands = () => [...new Set([...read('cli/README.md').matchAll(/\]\(([a-z]+)\.md/g)].map(m => m[1]))]

// translate the links of a page. Pages keep their places, but README.md is index.
function translateLinks(md) {
  md.core.ruler.push('repository-links', state => {
    const from = state.env.relativePath.replace(/index\.md$/, 'README.md')
    for (const token of state.tokens.flatMap(t => t.children ?? [])) {
      const name = token.type === 'link_open' ? 'href' : token.type === 'image' ? 'src' : ''
      const target = name && token.attrGet(name)
      if (!target || /^([a-z]+:|#|\/\/)/.test(target)) continue
      const [file, anchor] = target.split('#')
      const to = path.posix.join(path.posix.dirname(from), file)
      const hash = anchor ? '#' + anchor : ''
      if (name === 'src') continue // VitePress finds pictures itself
      if (to.startsWith('..') || !to.endsWith('.md')) {
        token.attrSet('href', `${repository}/blob/${version}/${path.posix.join('docs', to)}${hash}`)
      } else {
        token.attrSet('href', file.replace(/README\.md$/, 'index.md') + hash)
      }
    }
  })
}

export default {
  title: 'kidoban',
  description: 'NetworkPolicies for clusters whose CNI leaves policy to another component',
  lang: 'en',
  srcDir: docs,
  outDir: process.env.SITE_OUT,
  base: process.env.SITE_BASE,
  cleanUrls: true,
  metaChunk: true,
  vite: { build: { chunkSizeWarningLimit: 4000 } }, // the search index
  rewrites: page => page.replace(/(^|\/)README\.md$/, '$1index.md'),
  markdown: {
    anchor: { slugify: slug },
    config: translateLinks,
    languageAlias: { 'logs-insights': 'sql' },
  },
  themeConfig: {
    siteTitle: `kidoban ${version}`,
    sidebar: sidebar(),
    outline: [2, 3],
    search: { provider: 'local' },
    socialLinks: [{ icon: 'github', link: repository, ariaLabel: 'Repository' }],
    editLink: version === 'main' ? { pattern: `${repository}/edit/main/docs/:path`, text: 'Edit this page' } : undefined,
    version,
  },
}
