/**
 * The page of a portal: plain HTML without scripts, made from the merged document. Pages such as Swagger UI (11 MB) need scripts
 * that the browser runs with the session of the user; they can load the JSON document from anywhere.
 */
import type { Part } from './copy.ts'
import { isPart } from './copy.ts'
import type { Document } from './merge.ts'

const style = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
details { border: 1px solid #8886; border-radius: .4rem; margin: .4rem 0; padding: .4rem .8rem }
summary { cursor: pointer; font-family: ui-monospace, monospace; overflow-wrap: anywhere }
summary b { display: inline-block; min-width: 4.5rem }
summary span { font-family: system-ui, sans-serif; opacity: .75 }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0 }
pre { overflow: auto; background: #8882; padding: .6rem; border-radius: .4rem }
.old { text-decoration: line-through }
`

/** Longest JSON text of a schema on the page. */
const longestSchema = 4000

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;'
}
const escaped = (value: unknown): string => String(value ?? '').replace(/[&<>"']/g, (each) => entities[each]!)

/** Hash of the style, for `style-src` of the content security policy. */
export const pageStyle = style

/** Returns the page. `base` is the path of the portal. */
export function pageOf(document: Document, base: string): string {
  const { title, version, description } = document.info as { title: string; version: string; description?: string }
  const byTag = new Map<string, string[]>()
  for (const [path, item] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const [tag = 'default'] = Array.isArray(operation.tags) ? (operation.tags as unknown[]).map(String) : []
      byTag.set(tag, [...(byTag.get(tag) ?? []), operationHtml(method, path, operation, document)])
    }
  }
  const missing = (document['x-unavailable'] ?? []) as readonly string[]
  const sections = [...byTag].map(([tag, all]) => `<h2>${escaped(tag)}</h2>\n${all.join('\n')}`)
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escaped(title)}</title><style>${style}</style></head><body>
<h1>${escaped(title)} <small>${escaped(version)}</small></h1>
${description === undefined ? '' : `<p>${escaped(description)}</p>`}
<p><a href="${escaped(base)}/openapi.json">openapi.json</a> · <a href="${escaped(base)}/openapi.yaml">openapi.yaml</a></p>
${missing.length === 0 ? '' : `<p role="status">Not available at present: ${escaped(missing.join(', '))}</p>`}
${sections.length === 0 ? '<p>No operations.</p>' : sections.join('\n')}
</body></html>
`
}

function operationHtml(method: string, path: string, operation: Part, document: Document): string {
  const { summary, description, deprecated } = operation
  const name = deprecated === true ? `<span class="old">${escaped(path)}</span>` : escaped(path)
  return `<details><summary><b>${escaped(method.toUpperCase())}</b> ${name} <span>${escaped(summary)}</span></summary>
${description === undefined ? '' : `<p>${escaped(description)}</p>`}${securityHtml(operation)}${parametersHtml(operation, document)}${bodyHtml(operation, document)}${responsesHtml(operation, document)}</details>`
}

function securityHtml({ security }: Part): string {
  if (!Array.isArray(security) || security.length === 0) return ''
  const all = (security as unknown[]).filter(isPart).map((each) => Object.keys(each).join(' and ') || 'none')
  return `<p>Credentials: ${escaped(all.join(', or '))}</p>`
}

function parametersHtml({ parameters }: Part, document: Document): string {
  if (!Array.isArray(parameters)) return ''
  const rows = (parameters as unknown[]).map((each) => {
    const { name, in: place, required, schema, description } = resolved(each, document)
    const { type } = resolved(schema, document)
    return `<tr><td><code>${escaped(name)}</code></td><td>${escaped(place)}</td><td>${escaped(type)}</td><td>${required === true ? 'required' : ''}</td><td>${escaped(description)}</td></tr>`
  })
  return rows.length === 0 ? '' : `<table><tr><th>Parameter<th>in<th>type<th><th></tr>${rows.join('')}</table>`
}

function bodyHtml({ requestBody }: Part, document: Document): string {
  if (requestBody === undefined) return ''
  return `<h4>Request body</h4>${contentHtml(resolved(requestBody, document).content, document)}`
}

function responsesHtml({ responses }: Part, document: Document): string {
  if (!isPart(responses)) return ''
  const rows = Object.entries(responses).map(([status, each]) => {
    const { description, content } = resolved(each, document)
    return `<tr><td>${escaped(status)}</td><td>${escaped(description)}${status.startsWith('2') ? contentHtml(content, document) : ''}</td></tr>`
  })
  return `<h4>Responses</h4><table>${rows.join('')}</table>`
}

function contentHtml(content: unknown, document: Document): string {
  if (!isPart(content)) return ''
  return Object.entries(content)
    .map(([type, each]) => {
      const schema = resolved(isPart(each) ? each.schema : undefined, document)
      const text = JSON.stringify(schema, null, 2)
      const shown = text.length > longestSchema ? `${text.slice(0, longestSchema)} …` : text
      return `<p><code>${escaped(type)}</code></p>${Object.keys(schema).length === 0 ? '' : `<pre>${escaped(shown)}</pre>`}`
    })
    .join('')
}

/** Returns an object, or the component to which it refers; an empty object for anything else. */
function resolved(value: unknown, document: Document): Part {
  if (!isPart(value)) return {}
  const [, kind, name] = /^#\/components\/([^/]+)\/([^/]+)$/.exec(String(value.$ref ?? '')) ?? []
  if (kind === undefined) return value
  const found = document.components[kind]?.[name!]
  return isPart(found) ? found : {}
}
