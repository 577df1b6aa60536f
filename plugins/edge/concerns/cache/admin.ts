/** The cache on the admin port: what is stored, and purges. The admin server decides who may ask. */
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { MemoryStore, Purge } from './memory-store.ts'

const criteria = ['path', 'prefix', 'tag', 'host', 'route'] as const

/** Adds the pages. `stores` are those of the routes of this configuration. */
export function addPages(admin: FastifyInstance, stores: ReadonlySet<MemoryStore>): void {
  admin.get('/admin/cache', async () => ({
    stores: [...stores].map(({ maxSize, bytes, sums }) => ({
      maxSize,
      bytes,
      routes: [...sums].map(([route, sum]) => ({ route, ...sum }))
    }))
  }))

  admin.post<{ Querystring: Readonly<Record<string, unknown>> }>('/admin/cache/purge', async ({ query }, reply) => {
    const given = Object.entries(query)
    const wrong = given.find(([name, value]) => !isCriterion(name, value))
    if (wrong !== undefined) return refuse(reply, `${wrong[0]}: unknown, empty or given twice`)
    if (given.length === 0)
      return refuse(reply, `give one or more of ${criteria.join(', ')}; all=true purges everything`)
    const purge: Purge = Object.fromEntries(given.filter(([name]) => name !== 'all'))
    let purged = 0
    for (const store of stores) purged += store.purge(purge)
    return { purged }
  })
}

function isCriterion(name: string, value: unknown): boolean {
  if (name === 'all') return value === 'true'
  return criteria.some((each) => each === name) && typeof value === 'string' && value !== ''
}

const refuse = (reply: FastifyReply, message: string) =>
  reply.code(400).send({ statusCode: 400, error: 'Bad Request', message })
