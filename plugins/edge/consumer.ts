/** An authenticated caller. An edge concern or a plugin with `provides: [consumer]` sets it. */
export interface Consumer {
  /**
   * The token's `sub`, for `jwt`; `ISSUER|SUB` where the routes accept tokens of several issuers. On a listener with
   * `connect`, until a concern sets another: the name of the calling service.
   */
  readonly id: string
}

declare module 'fastify' {
  interface FastifyRequest {
    /** The caller, once authenticated. */
    consumer: Consumer | null
  }
}
