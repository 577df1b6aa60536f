/** Returns a path with percent-encoding for characters that a request line cannot have; existing escapes are kept. */
export function encodePath(path: string): string {
  return encodeURI(path.toWellFormed()).replace(/%25([\da-f]{2})/gi, '%$1')
}
