/** An authenticated caller. An edge concern or a plugin with `provides: [consumer]` sets it. */
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
