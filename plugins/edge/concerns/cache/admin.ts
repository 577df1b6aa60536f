/** The cache on the admin port: what is stored, and purges. The admin server decides who may ask. */
import type { FastifyInstance, FastifyReply } from 'fastify'
import { didYouMean } from '../../../../config/nearest.ts'
import type { MemoryStore } from './memory-store.ts'
import type { RedisStore } from './redis-store.ts'
import type { Purge } from './store.ts'
import { criteria } from './store.ts'

/** Most characters of all criteria together: nodes keep those of purges in Redis. */
const maxCriteria = 2048

type Stores = ReadonlySet<MemoryStore | RedisStore>

/** Result of a purge. A purge that Redis did not confirm has it too, beside the error. */
export interface Purged {
  /** Number of responses that were removed from the memory of this node. */
  readonly purged: number
  /** True if routes store in memory: other nodes keep their responses. */
  readonly memory: boolean
  /** True if routes store in Redis, where the purge is for all nodes. */
  readonly redis: boolean
}

/** Adds the pages. `stores` are those of the routes of this configuration, `routes` the names of all its routes. */
export function addPages(admin: FastifyInstance, stores: Stores, routes: ReadonlySet<string>): void {
  admin.get('/admin/cache', async () => ({
    stores: [...stores].map((store) => {
      const { maxSize, bytes } = store
      if (store.isRemote) return { store: 'redis', maxSize, bytes, isUp: store.isUp }
      return { store: 'memory', maxSize, bytes, routes: [...store.sums].map(([route, sum]) => ({ route, ...sum })) }
    })
  }))

  admin.post<{ Querystring: Readonly<Record<string, unknown>> }>('/admin/cache/purge', async ({ query }, reply) => {
    const given = Object.entries(query)
    const wrong = given.find(([name, value]) => !isCriterion(name, value))
    if (wrong !== undefined) return refuse(reply, `${wrong[0]}: unknown, empty or given twice`)
    if (given.length === 0)
      return refuse(reply, `give one or more of ${criteria.join(', ')}; all=true purges everything`)
    const relative = given.find(([name, value]) => isPath(name) && !String(value).startsWith('/'))
    if (relative !== undefined) return refuse(reply, `${relative[0]} begins with a slash`)
    const purge: Purge = Object.fromEntries(given.filter(([name]) => name !== 'all'))
    if (Object.values(purge).join('').length > maxCriteria)
      return refuse(reply, `the criteria have more than ${maxCriteria} characters`)
    if (purge.route !== undefined && !routes.has(purge.route)) {
      const message = `no route is named "${purge.route}"${didYouMean(purge.route, routes)}`
      return reply.code(404).send({ statusCode: 404, error: 'Not Found', message })
    }
    return purgeAll(stores, purge, reply)
  })
}

async function purgeAll(stores: Stores, purge: Purge, reply: FastifyReply): Promise<Purged | FastifyReply> {
  let purged = 0
  let memory = false
  const ofRedis: Promise<string | null>[] = []
  for (const store of stores) {
    if (store.isRemote) ofRedis.push(new Promise((resolve) => store.purge(purge, resolve)))
    else {
      memory = true
      purged += store.purge(purge)
    }
  }
  const failure = (await Promise.all(ofRedis)).find((each) => each !== null)
  const result: Purged = { purged, memory, redis: ofRedis.length > 0 }
  if (failure === undefined) return result
  // The command may have run although its reply is missing.
  const ofMemory = memory ? `; removed from the memory of this node: ${purged}` : ''
  const message = `Redis did not confirm the purge (${failure}): repeat it${ofMemory}`
  return reply.code(503).send({ statusCode: 503, error: 'Service Unavailable', message, ...result })
}

function isCriterion(name: string, value: unknown): boolean {
  if (name === 'all') return value === 'true'
  return criteria.some((each) => each === name) && typeof value === 'string' && value !== ''
}

const isPath = (name: string) => name === 'path' || name === 'prefix'

const refuse = (reply: FastifyReply, message: string) =>
  reply.code(400).send({ statusCode: 400, error: 'Bad Request', message })
