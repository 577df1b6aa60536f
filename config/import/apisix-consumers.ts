/** Consumers of APISIX, with their credentials and plugins. */
import { Buffer } from 'node:buffer'

import { applyPlugins } from './apisix-plugins.ts'
import type { ApisixContext } from './apisix-scope.ts'
import { keepForConsumer } from './consumers.ts'
import { isVariable, keyHash, passwordHash } from './credentials.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

export function importConsumers(root: Foreign, context: ApisixContext): void {
  const { draft } = context
  const used = new Set<string>()
  const groups = new Map(root.maps('consumer_groups').map((each) => [each.text('id') ?? '', each]))
  for (const each of groups.values()) each.skip('desc', 'labels', 'create_time', 'update_time')
  for (const consumer of root.maps('consumers')) {
    const name = consumer.text('username') ?? 'consumer'
    const group = consumer.text('group_id')
    const settings: Settings = { name, ...(group !== undefined && { groups: [group] }) }
    const edge: Settings = {}
    const plugins = consumer.map('plugins')
    const key = plugins?.map('key-auth')?.text('key')
    if (key !== undefined && !isVariable(key)) settings.keyAuth = { hash: keyHash(key) }
    else if (key !== undefined)
      draft.note(settings, `key of ${name} is a variable: write keyAuth with the output of jingwei hash-key`)
    const basic = plugins?.map('basic-auth')
    const password = basic?.text('password')
    if (password !== undefined && !isVariable(password)) {
      settings.basicAuth = { username: basic!.text('username') ?? name, hash: passwordHash(password) }
    } else if (password !== undefined) {
      basic!.skip('username')
      draft.note(
        settings,
        `password of ${name} is a variable: write basicAuth with the output of jingwei hash-password`
      )
    }
    const jwt = plugins?.map('jwt-auth')
    if (jwt !== undefined) {
      const issuer = jwt.text('key') ?? name
      const publicKey = jwt.text('public_key')
      context.issuers.push({
        issuer,
        ...(publicKey === undefined ? { secret: secretOf(jwt, (text) => draft.note(settings, text)) } : { publicKey }),
        algorithms: [jwt.text('algorithm') ?? 'HS256']
      })
      settings.jwt = { sub: issuer, issuer }
      jwt.skip('exp', 'lifetime_grace_period')
    }
    if (group !== undefined && !groups.has(group))
      draft.undecided(settings, `group_id ${group} is not in this file: its plugins are not converted`)
    used.add(group ?? '')
    const sets = [groups.get(group ?? '')?.map('plugins'), plugins].map((each) => ({ plugins: each, name: null }))
    applyPlugins(sets, context, { edge, route: settings }, ['key-auth', 'basic-auth', 'jwt-auth'])
    keepForConsumer(edge, settings, draft)
    if (Object.keys(edge).length > 0) settings.edge = edge
    consumer.skip('desc', 'labels', 'create_time', 'update_time')
    draft.consumers.push(settings)
  }
  for (const [id, group] of groups) {
    const plugins = group.map('plugins')
    if (used.has(id) || plugins === undefined) continue
    for (const name of plugins.keys) {
      draft.unknown(null, name, `plugin ${name} of consumer_group ${id}: write it under consumers[].edge`)
    }
    plugins.skip(...plugins.keys)
  }
}

/** Returns the secret of tokens, which may be in base64. */
function secretOf(jwt: Foreign, note: (text: string) => void): string {
  const secret = jwt.text('secret') ?? ''
  if (jwt.flag('base64_secret') !== true) return secret
  const text = Buffer.from(secret, 'base64').toString()
  if (/^[\x20-\x7e]+$/.test(text)) return text
  note(`${jwt.where}.secret is base64 of no text: write the decoded secret under edge.jwt.issuers, or another one`)
  return secret
}
