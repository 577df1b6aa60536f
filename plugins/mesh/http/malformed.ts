/** Error for bytes that are not a valid HTTP/1.1 response, or that two parsers could read differently. */
export class MalformedResponse extends Error {
  override readonly name = 'HTTPParserError' // undici's
  /** Code of llhttp, Node's own parser, such as `HPE_INVALID_CHUNK_SIZE`. */
  readonly code: `HPE_${string}`

  constructor(code: `HPE_${string}`, message: string) {
    super(message)
    this.code = code
  }
}
