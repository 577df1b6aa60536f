// A gateway whose only route has the configuration's number as its path: a request shows which one is in force.
import type { Test } from 'tap'
import { waitFor } from '../../helpers/processes.ts'
import type { Changing } from './gateway.ts'
import { startReloading } from './gateway.ts'
import { startCounting } from './service.ts'

export async function startNumbered(t: Test, more: object = {}) {
  const service = await startCounting(t)
  const configOf = (number: number): Changing => ({
    ...more,
    services: { orders: { instances: [service.url] } },
    routes: [{ name: 'orders', match: { path: `/${number}` }, service: 'orders' }]
  })
  const gateway = await startReloading(t, configOf(0))
  const applied = async (hash: string, number: number) => {
    await waitFor(`configuration ${number}`, async () => (await gateway.hash()) === hash)
    t.equal((await gateway.get(`/${number}`)).status, 200)
    t.equal((await gateway.get(`/${number - 1}`)).status, 404)
  }
  return { gateway, service, configOf, applied }
}
