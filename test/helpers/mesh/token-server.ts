/** A token endpoint of the test. */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { Test } from 'tap'
import { upstream } from './servers.ts'

export interface TokenRequest {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly form: Record<string, string>
}

/** Gives the tokens `token-1`, `token-2`, …, unless the test responds. */
export async function tokenServer(
  t: Test,
  respond: (response: ServerResponse, count: number, request: TokenRequest) => void = (response, count) =>
    giveToken(response, `token-${count}`)
) {
  const requests: TokenRequest[] = []
  const state = { respond }
  const server = await upstream(t, 'tokens', async (request, response) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk)
    const form = Object.fromEntries(new URLSearchParams(Buffer.concat(chunks).toString()))
    const seen = { path: `${request.method} ${request.url}`, headers: request.headers, form }
    state.respond(response, requests.push(seen), seen)
  })
  return { url: server.url, requests, state }
}

export function giveToken(response: ServerResponse, token: string, more: object = { expires_in: 3600 }): void {
  response.setHeader('content-type', 'application/json')
  response.end(JSON.stringify({ access_token: token, token_type: 'Bearer', ...more }))
}
