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

/** Longest JSON text of a schema on the page, and longest other text, in characters. */
const longestSchema = 4000
const longestText = 10_000

/** Most characters of all texts of the page: operations may refer to one long part again and again. */
const mostCharacters = 4_000_000

const entities: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;'
}
const escapedText = (text: string): string => text.replace(/[&<>"']/g, (each) => entities[each]!)

/** Returns a value of a document as text. An object has none: it may lack `toString`, or have another member of this name. */
function textOf(value: unknown): string {
  if (Array.isArray(value)) return value.map(textOf).filter(Boolean).join(', ')
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : ''
}

/** Hash of the style, for `style-src` of the content security policy. */
export const pageStyle = style

/** Returns the page. `base` is the path of the portal. */
export const pageOf = (document: Document, base: string): string => new Page(document).html(base)

class Page {
  readonly #document: Document
  #left = mostCharacters
  /** JSON texts of schemas, since many operations may refer to one. */
  readonly #schemas = new WeakMap<object, string>()

  constructor(document: Document) {
    this.#document = document
  }

  html(base: string): string {
    const { info, paths, 'x-unavailable': unavailable = [] } = this.#document
    const { title, version, description } = info as { title: string; version: string; description?: string }
    const byTag = new Map<string, string[]>()
    for (const [path, item] of Object.entries(paths)) {
      for (const [method, operation] of Object.entries(item)) {
        const tag = (Array.isArray(operation.tags) ? textOf(operation.tags[0]).slice(0, longestText) : '') || 'default'
        const section = byTag.get(tag) ?? []
        byTag.set(tag, section)
        section.push(this.#operation(method, path, operation))
      }
    }
    const missing = unavailable as readonly string[]
    const sections = [...byTag].map(([tag, all]) => `<h2>${escapedText(tag)}</h2>\n${all.join('\n')}`)
    return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escapedText(title)}</title><style>${style}</style></head><body>
<h1>${escapedText(title)} <small>${escapedText(version)}</small></h1>
${description === undefined ? '' : `<p>${escapedText(description)}</p>`}
<p><a href="${escapedText(base)}/openapi.json">openapi.json</a> · <a href="${escapedText(base)}/openapi.yaml">openapi.yaml</a></p>
${missing.length === 0 ? '' : `<p role="status">Not available at present: ${escapedText(missing.join(', '))}</p>`}
${this.#left > 0 ? '' : '<p role="status">The documents are too long for this page, which lacks texts. openapi.json has them all.</p>'}
${sections.length === 0 ? '<p>No operations.</p>' : sections.join('\n')}
</body></html>
`
  }

  /** Returns a value of a document as escaped text; none once the page has too many. */
  #text(value: unknown, longest = longestText): string {
    const text = textOf(value)
    const shown = text.length > longest ? `${text.slice(0, longest)} …` : text
    this.#left -= shown.length
    return this.#left > 0 ? escapedText(shown) : ''
  }

  #operation(method: string, path: string, operation: Part): string {
    const { summary, description, deprecated } = operation
    const name = deprecated === true ? `<span class="old">${this.#text(path)}</span>` : this.#text(path)
    return `<details><summary><b>${method.toUpperCase()}</b> ${name} <span>${this.#text(summary)}</span></summary>
${description === undefined ? '' : `<p>${this.#text(description)}</p>`}${this.#security(operation)}${this.#parameters(operation)}${this.#requestBody(operation)}${this.#responses(operation)}</details>`
  }

  #security({ security }: Part): string {
    if (!Array.isArray(security) || security.length === 0) return ''
    const all = (security as unknown[]).filter(isPart).map((each) => Object.keys(each).join(' and ') || 'none')
    return `<p>Credentials: ${this.#text(all.join(', or '))}</p>`
  }

  #parameters({ parameters }: Part): string {
    if (!Array.isArray(parameters)) return ''
    const rows = (parameters as unknown[]).map((each) => {
      const { name, in: place, required, schema, description } = this.#resolved(each)
      const { type } = this.#resolved(schema)
      return `<tr><td><code>${this.#text(name)}</code></td><td>${this.#text(place)}</td><td>${this.#text(type)}</td><td>${required === true ? 'required' : ''}</td><td>${this.#text(description)}</td></tr>`
    })
    return rows.length === 0 ? '' : `<table><tr><th>Parameter<th>in<th>type<th><th></tr>${rows.join('')}</table>`
  }

  #requestBody({ requestBody }: Part): string {
    if (requestBody === undefined) return ''
    return `<h4>Request body</h4>${this.#content(this.#resolved(requestBody).content)}`
  }

  #responses({ responses }: Part): string {
    if (!isPart(responses)) return ''
    const rows = Object.entries(responses).map(([status, each]) => {
      const { description, content } = this.#resolved(each)
      return `<tr><td>${this.#text(status)}</td><td>${this.#text(description)}${status.startsWith('2') ? this.#content(content) : ''}</td></tr>`
    })
    return `<h4>Responses</h4><table>${rows.join('')}</table>`
  }

  #content(content: unknown): string {
    if (!isPart(content) || this.#left <= 0) return ''
    return Object.entries(content)
      .map(([type, each]) => {
        const schema = this.#schema(this.#resolved(isPart(each) ? each.schema : undefined))
        return `<p><code>${this.#text(type)}</code></p>${schema === '' ? '' : `<pre>${this.#text(schema, longestSchema)}</pre>`}`
      })
      .join('')
  }

  #schema(schema: Part): string {
    if (Object.keys(schema).length === 0) return ''
    const known = this.#schemas.get(schema)
    if (known !== undefined) return known
    const text = JSON.stringify(schema, null, 2).slice(0, longestSchema + 1)
    this.#schemas.set(schema, text)
    return text
  }

  /** Returns an object, or the component to which it refers; an empty object for anything else. */
  #resolved(value: unknown): Part {
    if (!isPart(value)) return {}
    const { $ref: reference } = value
    const [, kind, name] =
      typeof reference === 'string' ? (/^#\/components\/([^/]+)\/([^/]+)$/.exec(reference) ?? []) : []
    if (kind === undefined) return value
    const found = this.#document.components[kind]?.[name!]
    return isPart(found) ? found : {}
  }
}
