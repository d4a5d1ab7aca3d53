// Usage: node check.mjs DIRECTORY BASE
// Checks that each link of the built pages leads to a file of the site and, with a fragment, to an element of that page.
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import path from 'node:path'

const [directory, base] = process.argv.slice(2)
const pages = readdirSync(directory, { recursive: true }).filter(f => f.endsWith('.html'))
const html = new Map(pages.map(f => [f, readFileSync(path.join(directory, f), 'utf8')]))
const ids = new Map([...html].map(([f, text]) => [f, new Set([...text.matchAll(/ id="([^"]*)"/g)].map(m => decode(m[1])))]))

function decode(text) {
  return text.replaceAll('&quot;', '"').replaceAll('&#39;', "'").replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&')
}

// file of a link's path: pages have no extension in it.
function fileOf(target) {
  const candidates = [target, target + '.html', path.posix.join(target, 'index.html')]
  return candidates.find(f => existsSync(path.join(directory, f)) && statSync(path.join(directory, f)).isFile())
}

const broken = []
let checked = 0
for (const [page, text] of html) {
  for (const [, , link] of text.matchAll(/<(a|img|link|script)\b[^>]*? (?:href|src)="([^"]*)"/g)) {
    const url = new URL(decode(link), 'https://site.invalid' + base + page)
    if (url.host !== 'site.invalid') continue
    checked++
    if (!url.pathname.startsWith(base)) {
      broken.push(`${page}: ${link} is not below ${base}`)
      continue
    }
    const file = fileOf(decodeURIComponent(url.pathname.slice(base.length)))
    const fragment = decodeURIComponent(url.hash.slice(1))
    if (!file) broken.push(`${page}: ${link}: there is no such file`)
    else if (fragment && ids.has(file) && !ids.get(file).has(fragment)) broken.push(`${page}: ${link}: there is no such heading`)
  }
}
if (pages.length < 2 || checked < pages.length) broken.push(`only ${pages.length} pages and ${checked} links in ${directory}`)
for (const line of broken) console.error(line)
console.log(`${pages.length} pages, ${checked} links, ${broken.length} broken`)
process.exit(broken.length ? 1 : 0)
