/** Methods of authentication: every list of them, in texts and in checks, is that of the definitions of the concerns. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import { Authentication } from '../../../plugins/edge/authentication/options.ts'
import { edgeKeys } from '../../../plugins/edge/index.ts'

const methods = edgeKeys.filter(({ authenticates }) => authenticates !== undefined)
const names = methods.map(({ name }) => name)
const counted = methods.filter(({ authenticates }) => authenticates!.counts !== null).map(({ name }) => name)

/** Returns the names in backquotes of a part of a text. */
const namesIn = (text: string, part: RegExp) =>
  [...(part.exec(text)?.[1] ?? '').matchAll(/`(\w+)`/g)].map(([, name]) => name!)

const sourcesOf = (folder: string): string =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((file) => /\.m?ts$/.test(file))
    .map((file) => readFileSync(join(folder, file), 'utf8'))
    .join('\n')

t.test('each concern that adds a method to a route is declared as one, and no other', async (t) => {
  const folder = 'plugins/edge/concerns'
  const adding = readdirSync(folder).filter(
    (name) => !name.includes('.') && sourcesOf(join(folder, name)).includes('authenticateBy(')
  )
  const keyOf = (name: string) => name.replace(/-(\w)/g, (_dash, letter: string) => letter.toUpperCase())
  t.strictSame(adding.map(keyOf).toSorted(), names.toSorted())
})

t.test('the documentation names all methods in their order, and those whose failures are counted', async (t) => {
  const readme = readFileSync('plugins/edge/consumers/README.md', 'utf8')
  t.strictSame(namesIn(readme, /^Methods are (.*?);/ms), names)
  const { require, failures } = Authentication.properties
  t.strictSame(namesIn(JSON.stringify(require), /several of (.*?) on a route/), names)
  t.strictSame(namesIn(JSON.stringify(failures), /attempts by (.*?) for one/), counted)
})

const shared = {
  consumers: [
    {
      name: 'a',
      basicAuth: {
        username: 'a',
        hash: '$scrypt$ln=15,r=8,p=3$bm9ib2R5bm9ib2R5bm9ibw$bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5bm9ib2R5bm8'
      }
    }
  ]
}

/** Returns the fault of a route with these options that needs all of its methods; null if there is none. */
function faultOf(edge: object): string | null {
  const routes = [
    { name: 'a', match: { path: '/' }, service: 'a', edge: { ...edge, authentication: { require: 'all' } } }
  ]
  try {
    parseConfig(JSON.stringify({ ...shared, services: { a: { instances: ['http://127.0.0.1:1'] } }, routes }))
    return null
  } catch (error) {
    return (error as Error).message
  }
}

t.test('methods that need different schemes in Authorization cannot all accept one request', async (t) => {
  const jwt = { secret: 's'.repeat(32) }
  t.match(faultOf({ basicAuth: {}, jwt }), /basicAuth and jwt need the Authorization header each/)
  const possible = [
    { from: { cookie: 'session' } },
    { from: { header: 'x-token' } },
    { from: { header: false, query: 'token' } },
    { optional: true }
  ]
  for (const more of possible) t.equal(faultOf({ basicAuth: {}, jwt: { ...jwt, ...more } }), null, JSON.stringify(more))
})
