/** Consumers of APISIX, with their credentials and plugins. */

import { applyPlugins } from './apisix-plugins.ts'
import type { ApisixContext } from './apisix-scope.ts'
import { isVariable, keyHash, passwordHash } from './credentials.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

export function importConsumers(root: Foreign, context: ApisixContext): void {
  const { draft } = context
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
        ...(publicKey === undefined ? { secret: jwt.text('secret') ?? '' } : { publicKey }),
        algorithms: [jwt.text('algorithm') ?? 'HS256']
      })
      settings.jwt = { sub: issuer, issuer }
      if (jwt.flag('base64_secret') === true)
        draft.note(settings, `base64_secret of ${name}: write the decoded secret under edge.jwt.issuers`)
      jwt.skip('exp', 'lifetime_grace_period')
    }
    applyPlugins(plugins, context, { edge, route: settings, name: null }, ['key-auth', 'basic-auth', 'jwt-auth'])
    if (Object.keys(edge).length > 0) settings.edge = edge
    consumer.skip('desc', 'labels', 'create_time', 'update_time')
    draft.consumers.push(settings)
  }
}
