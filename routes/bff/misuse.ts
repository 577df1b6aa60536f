/** Errors for wrong arguments, which TypeScript refuses for the most part and JavaScript does not. */
import { Readable } from 'node:stream'

/** Names a wrong argument. Handles a promise: without a handler, its rejection would end the process. */
function kindOf(value: unknown): string {
  if (!(value instanceof Promise)) return value === null ? 'null' : typeof value
  value.catch(() => {})
  return 'a promise'
}

/** Throws a TypeError for a value that is no async iterable. */
export function checkIterable(what: string, value: unknown): void {
  if (Symbol.asyncIterator in Object(value)) return
  const kind = kindOf(value)
  const advice = kind === 'a promise' ? '; await it' : ''
  throw new TypeError(`${what} must be an async iterable, such as a stream, not ${kind}${advice}`)
}

/** Throws a TypeError for items that are a stream of bytes or text, whose chunks have no meaning of their own. */
export function checkItems(helper: string, reader: string, items: unknown): void {
  checkIterable(`${helper}: the second argument`, items)
  if (!(items instanceof Readable) || items.readableObjectMode) return
  throw new TypeError(
    `${helper} sends items, not bytes: read the stream with ${reader}, or send it as it is with reply.send(stream)`
  )
}

/** Throws a TypeError for a value that is no function. `form` shows the right one. */
export function checkFunction(what: string, value: unknown, form: string): void {
  if (typeof value !== 'function')
    throw new TypeError(`${what} must be a function, not ${kindOf(value)}; write ${form}`)
}

/** Checks all arguments before it throws the first fault, so that the rejection of each promise is handled. */
export function checkAll(
  values: Readonly<Record<string, unknown>>,
  check: (name: string, value: unknown) => void
): void {
  const faults: unknown[] = []
  for (const [name, value] of Object.entries(values)) {
    try {
      check(name, value)
    } catch (fault) {
      faults.push(fault)
    }
  }
  if (faults.length > 0) throw faults[0]
}
