/** Credentials toward services by the grant client_credentials, as other gateways write them. */
import { duration } from './draft.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

/** Parameters with keys of their own. */
const own: Readonly<Record<string, string>> = { audience: 'audience', scope: 'scopes' }

function oauth2(
  given: { url: string | undefined; clientId: string | undefined; clientSecret: string | undefined },
  scopes: readonly string[],
  parameters: Foreign | undefined,
  more: Settings = {}
): Settings {
  const settings: Settings = { ...given, ...more }
  const others: Settings = {}
  const listed = scopes.flatMap((text) => text.split(/[\s,]+/)).filter((scope) => scope !== '')
  if (listed.length > 0) settings.scopes = listed
  for (const name of parameters?.keys ?? []) {
    const [value = ''] = parameters!.texts(name)
    const key = Object.hasOwn(own, name) ? own[name] : undefined
    if (key === 'scopes') settings.scopes ??= value.split(/\s+/)
    else if (key !== undefined) settings[key] ??= value
    else if (name !== 'grant_type') others[name] = value
  }
  if (Object.keys(others).length > 0) settings.parameters = others
  return { oauth2: settings }
}

/** Returns the credentials of `auth/client-credentials` of KrakenD. */
export function krakendCredentials(config: Foreign): Settings {
  const given = {
    url: config.text('token_url'),
    clientId: config.text('client_id'),
    clientSecret: config.text('client_secret')
  }
  return oauth2(given, config.texts('scopes'), config.map('endpoint_params'))
}

/** Returns the credentials of `upstream-oauth` of Kong; a text for what another grant needs. */
export function kongCredentials(config: Foreign): Settings | string {
  const of = config.mapOrEmpty('oauth')
  const client = config.map('client')
  const cache = config.map('cache')
  const early = cache?.number('eagerly_expire')
  const ttl = cache?.number('default_ttl')
  const method = client?.text('auth_method') ?? 'client_secret_post'
  const timeout = client?.number('timeout')
  const grant = of.text('grant_type') ?? 'client_credentials'
  const given = {
    url: of.text('token_endpoint'),
    clientId: of.text('client_id'),
    clientSecret: of.text('client_secret')
  }
  const audience = of.texts('audience')
  const more: Settings = {
    ...(method === 'client_secret_post' && { clientAuth: 'post' }),
    ...(audience.length > 0 && { audience: audience[0] }),
    ...(timeout !== undefined && { timeout: duration(timeout) }),
    ...(early !== undefined && early > 0 && { refreshBefore: duration(early * 1000) }),
    ...(ttl !== undefined && { maxAge: duration(ttl * 1000) })
  }
  const result = oauth2(given, of.texts('scopes'), of.map('token_post_args'), more)
  for (const part of [of, client, cache, config]) part?.skip(...part.keys)
  if (grant !== 'client_credentials') return `the grant ${grant}`
  return method === 'client_secret_post' || method === 'client_secret_basic' ? result : `the method ${method}`
}
