/** The parts of oidc-provider that tests use; the package has no types of its own. */
declare module 'oidc-provider' {
  import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'

  export interface AdapterPayload {
    consumed?: unknown
    uid?: string
    grantId?: string
    [name: string]: unknown
  }

  interface Account {
    accountId: string
    claims: () => Promise<Record<string, unknown>>
  }

  interface Configuration {
    adapter?: (kind: string) => object
    interactions?: { url: (context: unknown, interaction: { uid: string }) => string }
    findAccount?: (context: unknown, id: string) => Promise<Account>
    [name: string]: unknown
  }

  interface Grant {
    addOIDCScope(scope: string): void
    save(): Promise<string>
  }

  export class Provider {
    constructor(issuer: string, configuration: Configuration)
    readonly Grant: {
      new (of: { accountId: string; clientId: string }): Grant
      find(id: string): Promise<Grant | undefined>
    }
    on(event: 'server_error' | 'backchannel.error', listener: (context: unknown, error: Error) => void): void
    callback(): RequestListener
    interactionDetails(
      request: IncomingMessage,
      response: ServerResponse
    ): Promise<{ params: Record<string, unknown>; session?: { accountId: string }; grantId?: string }>
    interactionFinished(request: IncomingMessage, response: ServerResponse, result: object): Promise<void>
  }
}
