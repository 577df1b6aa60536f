/** Consumers of Kong, with their credentials and plugins. */
import { keepForConsumer } from './consumers.ts'
import { isVariable, keyHash, passwordHash } from './credentials.ts'
import type { Draft } from './draft.ts'
import type { Foreign } from './foreign.ts'
import { applyPlugins, nameOf } from './kong-plugins.ts'
import type { KongContext, Scoped } from './kong-scope.ts'
import { reference } from './kong-scope.ts'
import { oneOrAll } from './patterns.ts'
import type { Settings } from './yaml-text.ts'

/** Returns the credentials of a consumer: its own list, and those of the list at the top level. */
const credentialsOf = (root: Foreign, consumer: Foreign, username: string, key: string): Foreign[] => [
  ...consumer.maps(key),
  ...root.maps(key).filter((each) => reference(each, 'consumer') === username)
]

const credentialLists = ['keyauth_credentials', 'basicauth_credentials', 'hmacauth_credentials', 'jwt_secrets', 'acls']

export function importConsumers(root: Foreign, context: KongContext, scoped: Scoped): void {
  const { draft } = context
  const known = new Map(
    root.maps('consumer_groups').map((group) => [group.text('name') ?? group.text('id') ?? '', group])
  )
  const ofGroups = new Map([...known].map(([name, group]) => [name, pluginsOf(group, name, scoped)]))
  const used = new Set<string>()
  const members = (name: string) =>
    [...known].filter(([, group]) => group.maps('consumers').some((each) => each.text('username') === name))
  for (const consumer of root.maps('consumers')) {
    const name = consumer.text('username') ?? consumer.text('custom_id') ?? consumer.text('id') ?? 'consumer'
    const of = (key: string) => credentialsOf(root, consumer, name, key)
    if (consumer.isOff()) {
      for (const each of [...credentialLists.flatMap(of), ...scoped.of('consumer', name)]) each.skip(...each.keys)
      draft.note(null, `${consumer.where}: consumer ${name} is off (enabled: false): not converted`)
      continue
    }
    const settings: Settings = { name }
    const groups = [
      ...of('acls').map((acl) => acl.text('group')!),
      ...consumer.maps('groups').map((group) => group.text('name')!),
      ...members(name).map(([group]) => group)
    ]
    if (groups.length > 0) settings.groups = [...new Set(groups)]
    const tags = consumer.texts('tags')
    if (tags.length > 0) settings.tags = tags
    const keys = of('keyauth_credentials').map((credential) => keyOf(credential, settings, draft))
    if (keys.length > 0) settings.keyAuth = oneOrAll(keys)
    for (const credential of of('basicauth_credentials')) {
      const password = credential.text('password') ?? ''
      const username = credential.text('username') ?? name
      credential.skip('tags', 'id')
      if (isVariable(password) || /^[\da-f]{40}$/.test(password)) {
        draft.note(
          settings,
          `password of ${username} is not known here: write basicAuth with the output of jingwei hash-password`
        )
      } else settings.basicAuth = { username, hash: passwordHash(password) }
    }
    for (const credential of of('hmacauth_credentials')) {
      settings.hmacAuth = { username: credential.text('username') ?? name, secret: credential.text('secret') ?? '' }
      credential.skip('tags', 'id')
    }
    for (const secret of of('jwt_secrets')) settings.jwt = tokensOf(secret, name, context)
    const edge: Settings = {}
    for (const group of groups) used.add(group)
    const plugins = [...new Set(groups)].flatMap((group) => ofGroups.get(group) ?? [])
    plugins.push(...consumer.maps('plugins'), ...scoped.of('consumer', name))
    applyPlugins(plugins, context, { target: edge, about: settings, name, hasMethod: true })
    keepForConsumer(edge, settings, draft)
    if (Object.keys(edge).length > 0) settings.edge = edge
    if (consumer.has('custom_id') && consumer.has('username'))
      draft.note(null, 'custom_id: services do not get it; write consumers[].tags, and authentication.forward.tags')
    consumer.skip('id', 'custom_id', 'created_at', 'updated_at')
    draft.consumers.push(settings)
  }
  for (const [group, plugins] of ofGroups) {
    if (used.has(group)) continue
    for (const plugin of plugins) {
      plugin.skip(...plugin.keys)
      const text = `plugin ${nameOf(plugin)} of consumer_group ${group}: write it under consumers[].edge`
      draft.unknown(null, nameOf(plugin), text)
    }
  }
}

/** Returns the plugins of a group, which each of its consumers has. */
function pluginsOf(group: Foreign, name: string, scoped: Scoped): Foreign[] {
  group.skip('id', 'tags', 'created_at', 'updated_at', 'consumers')
  return [...group.maps('plugins'), ...scoped.of('consumer_group', name)]
}

function keyOf(credential: Foreign, settings: Settings, draft: Draft): Settings {
  const key = credential.text('key') ?? ''
  credential.skip('tags', 'id', 'ttl')
  if (!isVariable(key)) return { hash: keyHash(key) }
  draft.note(settings, `${credential.where}.key is a variable: write the hash of the key, by: jingwei hash-key`)
  return { hash: key }
}

function tokensOf(secret: Foreign, name: string, { issuers }: KongContext): Settings {
  const issuer = secret.text('key') ?? name
  const algorithm = secret.text('algorithm') ?? 'HS256'
  const publicKey = secret.text('rsa_public_key')
  const shared = secret.text('secret')
  secret.skip('tags', 'id')
  issuers.push({
    issuer,
    ...(publicKey === undefined ? { secret: shared ?? '' } : { publicKey }),
    algorithms: [algorithm]
  })
  return { sub: issuer, issuer }
}
