/**
 * Closes an iterator that is not needed any more. It is not awaited: a generator that waits for an item returns only when the
 * item arrives. An iterator may have a `return` that is missing, not async, or throws.
 */
export function closeIterator(iterator: AsyncIterator<unknown>): void {
  Promise.try(() => iterator.return?.()).catch(() => {})
}
