/** Error for bytes that are no HTTP/1.1 response, or one that two parsers could read differently. */
export class MalformedResponse extends Error {
  override readonly name = 'HTTPParserError' // undici's
  /** In the words of llhttp, which all of Node's users know: `HPE_INVALID_CHUNK_SIZE` and the like. */
  readonly code: `HPE_${string}`

  constructor(code: `HPE_${string}`, message: string) {
    super(message)
    this.code = code
  }
}
