/** Plugins of Kong that ask an OAuth server, and those that check requests by schemas. */
import { Buffer } from 'node:buffer'
import type { Foreign } from './foreign.ts'
import { member } from './foreign.ts'
import type { Convert } from './kong-scope.ts'
import { sessionOf } from './logins.ts'
import { oneOrAll } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

/** Returns the mapping for two lists of the same length. */
const paired = (names: readonly string[], values: readonly string[]): Record<string, string> =>
  Object.fromEntries(names.flatMap((name, index) => (values[index] === undefined ? [] : [[name, values[index]]])))

/** Keys of openid-connect that decide who is let in, and that have no counterpart. */
const decisive = /required|forbidden|disallow|_verify|allowed/

const openidConnect: Convert = (config, { target, about, context: { draft } }) => {
  const issuer = (config.text('issuer') ?? '').replace(/\/\.well-known\/openid-configuration$/, '')
  const methods = config.texts('auth_methods')
  const isLogin = methods.length === 0 || methods.includes('authorization_code')
  const isBearer = methods.includes('bearer')
  const [clientId = ''] = config.texts('client_id')
  const [clientSecret] = config.texts('client_secret')
  const scopes = config.texts('scopes')
  const required = config.texts('scopes_required').flatMap((each) => each.split(' '))
  const audience = config.texts('audience_required')
  const roles = [...config.texts('roles_required'), ...config.texts('groups_required')]
  const rolesClaim = [...config.texts('roles_claim'), ...config.texts('groups_claim')].join('.')
  const [consumer] = config.texts('consumer_claim')
  const forward = paired(
    config.texts('upstream_headers_claims'),
    config.texts('upstream_headers_names').map((each) => each.toLowerCase())
  )
  const secret = config.text('session_secret')
  const logout = config.text('logout_path')
  const common = { ...(consumer !== undefined && { consumer }), ...(Object.keys(forward).length > 0 && { forward }) }
  if (isLogin) {
    target.oidc = {
      issuer,
      clientId,
      ...(clientSecret !== undefined && { clientSecret }),
      ...(scopes.length > 0 && { scopes }),
      session: sessionOf(secret, (text) => draft.note(about, text)),
      ...(logout !== undefined && { logout: { path: logout } }),
      ...common
    }
    if (audience.length > 0)
      draft.undecided(about, `${config.where}.audience_required: write acl.claims for the sessions`)
    if (required.length > 0) target.acl = { ...((target.acl ?? {}) as Settings), scopes: required }
    draft.note(about, `openid-connect: register https://HOST/oidc/callback at ${issuer}`)
  }
  if (isBearer) {
    target.jwt = {
      issuer,
      discovery: true,
      ...(audience.length > 0 && { audience: oneOrAll(audience) }),
      ...(required.length > 0 && { scopes: required }),
      ...common
    }
  }
  if (roles.length > 0)
    target.acl = { ...((target.acl ?? {}) as Settings), roles, ...(rolesClaim !== '' && { rolesClaim }) }
  if (isLogin && isBearer) target.authentication = { ...((target.authentication ?? {}) as Settings), require: 'any' }
  if (!isLogin && !isBearer)
    draft.undecided(about, `openid-connect with auth_methods ${methods.join(', ')}: not converted`)
  for (const key of config.keys.filter((each) => decisive.test(each) && config.isUnread(each))) {
    draft.undecided(about, `${config.where}.${key}: not converted`)
  }
  config.skip(...config.keys)
}

const introspection: Convert = (config, { target, about, context: { draft } }) => {
  const value = /^Basic\s+(\S+)$/i.exec(config.text('authorization_value') ?? '')?.[1]
  const [clientId = '', clientSecret = ''] = Buffer.from(value ?? '', 'base64')
    .toString()
    .split(/:(.*)/s)
  const [url, ttl] = [config.text('introspection_url'), config.number('ttl')]
  config.skip(...config.keys)
  if (value === undefined)
    return draft.undecided(
      about,
      `${config.where}.authorization_value: write edge.introspection with clientId and clientSecret`
    )
  target.introspection = { url, clientId, clientSecret, ...(ttl !== undefined && { maxAge: `${ttl}s` }) }
}

const drafts: Readonly<Record<string, string>> = {
  draft4: 'http://json-schema.org/draft-04/schema#',
  draft7: 'http://json-schema.org/draft-07/schema#',
  draft202012: 'https://json-schema.org/draft/2020-12/schema'
}

/** Returns a schema that is written as a text of JSON; null if it is none. */
function schemaOf(text: string | undefined): Settings | null {
  try {
    const schema: unknown = JSON.parse(text ?? '{}')
    return typeof schema === 'object' && schema !== null && !Array.isArray(schema) ? { ...schema } : null
  } catch {
    return null
  }
}

const validator: Convert = (config, { target, about, context: { draft } }) => {
  const version = config.text('version') ?? 'kong'
  const dialect = member(drafts, version)
  const types = config.texts('allowed_content_types')
  const validation: Settings = {}
  const given = config.text('body_schema')
  const body = schemaOf(given)
  const parameters = config.maps('parameter_schema').map(parameterOf)
  config.skip('verbose_response', 'content_type_parameter_validation')
  if (dialect === undefined || body === null || parameters.some((each) => each === null))
    return draft.undecided(about, `request-validator with version ${version}: write edge.validation with JSON Schemas`)
  if (given !== undefined) {
    const schema = { $schema: dialect, ...body }
    const all = types.length > 0 ? types : ['application/json']
    // Kong checks bodies of JSON alone.
    const schemaFor = (type: string) => (/[/+]json$/.test(type) ? schema : true)
    const bare = all.map((type) => (type.split(';', 1)[0] ?? '').trim().toLowerCase())
    validation.body = { content: Object.fromEntries(bare.map((type) => [type, schemaFor(type)])) }
  }
  for (const part of ['query', 'header', 'path'] as const) {
    const those = parameters.filter((each) => each!.in === part).map((each) => each!)
    if (those.length === 0) continue
    const required = those.filter((each) => each.isRequired).map(({ name }) => name)
    validation[part === 'header' ? 'headers' : part] = {
      $schema: dialect,
      type: 'object',
      properties: Object.fromEntries(those.map(({ name, schema }) => [name, schema])),
      ...(required.length > 0 && { required })
    }
  }
  if (Object.keys(validation).length > 0) target.validation = validation
}

function parameterOf(parameter: Foreign) {
  const place = parameter.text('in') ?? 'query'
  const name = parameter.text('name') ?? ''
  const schema = schemaOf(parameter.text('schema'))
  parameter.skip('style', 'explode')
  const isRequired = parameter.flag('required') === true
  return schema === null
    ? null
    : { in: place, name: place === 'header' ? name.toLowerCase() : name, isRequired, schema }
}

/** Returns a document that may be percent-encoded as a whole. */
function documentOf(text: string, isEncoded: boolean): string {
  try {
    return isEncoded && !/\s/.test(text.trim()) ? decodeURIComponent(text) : text
  } catch {
    return text
  }
}

/** Parts of requests that the plugin may leave out. */
const parts = ['body', 'header_params', 'query_params', 'uri_params'].map((part) => `validate_request_${part}`)

const oasValidation: Convert = (config, { target, about, name, context: { draft } }) => {
  const note = (text: string) => draft.note(about, `oas-validation: ${text}`)
  const document = documentOf(config.text('api_spec') ?? '', config.flag('api_spec_encoded') ?? true)
  const isShadow = config.flag('notify_only_request_validation_failure') === true
  const isResponseShadow = config.flag('notify_only_response_body_validation_failure') === true
  const checksResponses = config.flag('validate_response_body') === true
  const basePath = config.text('custom_base_path') ?? (config.flag('include_base_path') === true ? undefined : '/')
  const skipped = parts.filter((part) => config.flag(part) === false)
  const refusesQuery = config.flag('query_parameter_check') === true
  if (config.flag('header_parameter_check') === true)
    draft.undecided(about, `${config.where}.header_parameter_check: headers that the document does not have pass here`)
  config.skip(...config.keys)
  if (!/(?:^|[\s{,])["']?openapi["']?\s*:\s*["']?3\.[01]/.test(document))
    return draft.undecided(
      about,
      'oas-validation: api_spec is no OpenAPI document of version 3: write edge.validation.openapi'
    )
  if (skipped.length > 0) note(`${skipped.join(', ')}: all parts of requests are validated here`)
  const ending = document.trimStart().startsWith('{') ? '-openapi.json' : '-openapi.yaml'
  target.validation = {
    openapi: draft.file(String(about?.name ?? name), ending, `${document.trimEnd()}\n`),
    ...(basePath !== undefined && { basePath }),
    // Kong compares the path that the client has sent.
    ...(about?.path !== undefined && { describes: 'client' }),
    ...(refusesQuery && { unknownQuery: 'refuse' }),
    ...(checksResponses && { responses: isResponseShadow ? 'shadow' : 'enforce' }),
    ...(isShadow && { mode: 'shadow' })
  }
}

export const access: Readonly<Record<string, Convert>> = {
  'openid-connect': openidConnect,
  'oauth2-introspection': introspection,
  'request-validator': validator,
  'oas-validation': oasValidation
}
