/** Settings of consumers, who can have some concerns of their own. */
import type { Draft } from './draft.ts'
import type { Settings } from './yaml-text.ts'

/** Concerns that a consumer can have. */
const ofConsumers = new Set([
  'shedPriority',
  'bodyTimeout',
  'bodyRate',
  'ipFilter',
  'rateLimit',
  'acl',
  'authorization'
])
const others = new Set(['websocket', 'bodyLimit', 'graphql'])

/** Concerns that refuse no requests. */
const harmless = new Set(['headers', 'query', 'body', 'cors', 'cache', 'compression', 'accessLog', 'host', 'requestId'])

/** Removes concerns that a consumer cannot have; those that protect are undecided. */
export function keepForConsumer(edge: Settings, consumer: Settings, draft: Draft): void {
  for (const key of Object.keys(edge)) {
    if (ofConsumers.has(key) || others.has(key) || key === 'todo') continue
    delete edge[key]
    // Rules for methods, which are noted themselves.
    if (key === 'authentication') continue
    const text = `consumer ${String(consumer.name)}: edge.${key} of a consumer: not converted; write it at routes`
    if (harmless.has(key)) draft.note(consumer, text)
    else draft.undecided(consumer, text)
  }
}
