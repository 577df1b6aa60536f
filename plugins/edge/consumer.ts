/** A known caller, whatever has authenticated it: a concern of the edge, or a plugin that says so by `provides`. */
export interface Consumer {
  /** The token's `sub`, for `jwt`; `ISSUER|SUB` where the routes accept tokens of several issuers. */
  readonly id: string
}

declare module 'fastify' {
  interface FastifyRequest {
    /** The caller, once authenticated. */
    consumer: Consumer | null
  }
}
