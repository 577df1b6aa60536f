/** Makes the bodies of a portal from the documents of services. It has no access to the gateway: thread.ts runs it. */
import { createHash } from 'node:crypto'
import { CORE_SCHEMA, dump, load } from 'js-yaml'
import type { PortalConfig } from '../../config/schema/portal.ts'
import type { Described, Document } from './merge.ts'
import { Merged } from './merge.ts'
import { pageOf } from './page.ts'

/** The texts of a service's document: those that it may have, the best first. */
export interface Written {
  readonly service: string
  readonly basePath: string
  readonly texts: readonly string[]
  readonly routes: readonly Described[]
}

export interface Task {
  readonly portal: Pick<PortalConfig, 'title' | 'version' | 'description' | 'maxDocumentSize'>
  /** Path of the portal. */
  readonly base: string
  /** Prefix under which the gateway is registered in a server; else empty. */
  readonly mount: string
  readonly documents: readonly Written[]
}

export interface Body {
  readonly type: string
  readonly text: string
  readonly tag: string
}

export interface Outcome {
  /** Bodies by the end of the path. */
  readonly bodies: ReadonlyMap<string, Body>
  /** Texts that are shown, by service. */
  readonly shown: ReadonlyMap<string, string>
  /** Reasons why texts are not shown. */
  readonly problems: readonly { readonly service: string; readonly reason: string }[]
}

/** A document refers to shared parts, such as the parameters of a path, so that its copy may be longer. */
const growth = 4

export function builtFrom({ portal, base, mount, documents }: Task): Outcome {
  const { title, version, description, maxDocumentSize } = portal
  const merged = new Merged()
  const shown = new Map<string, string>()
  const problems: { service: string; reason: string }[] = []
  for (const { service, basePath, texts, routes } of documents) {
    for (const text of texts) {
      if (shown.has(service)) break
      try {
        merged.add(service, parsed(text), { basePath, routes, mostCharacters: growth * maxDocumentSize })
        shown.set(service, text)
      } catch (error) {
        problems.push({ service, reason: (error as Error).message.slice(0, 500) })
      }
    }
    if (!shown.has(service)) merged.lacks(service)
  }
  const document = merged.finish({ title, version, ...(description !== undefined && { description }) }, mount)
  return { bodies: bodiesOf(document, base), shown, problems }
}

/** Parses JSON or YAML. Aliases share their values, so that a short text takes little memory whatever it stands for. */
const parsed = (text: string): unknown =>
  /^\s*\{/.test(text) ? JSON.parse(text.trim()) : load(text, { schema: CORE_SCHEMA })

function bodiesOf(document: Document, base: string): Outcome['bodies'] {
  const body = (type: string, text: string): Body => ({
    type,
    text,
    tag: `"${createHash('sha256').update(text).digest('base64url').slice(0, 22)}"`
  })
  return new Map([
    ['', body('text/html; charset=utf-8', pageOf(document, base))],
    ['/openapi.json', body('application/json; charset=utf-8', JSON.stringify(document))],
    ['/openapi.yaml', body('application/yaml; charset=utf-8', dump(document, { noRefs: true }))]
  ])
}
