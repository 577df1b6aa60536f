/**
 * Checks for rules that a schema cannot express, mostly between parts of the configuration. Values that have a fault already
 * are skipped, so that a mistake is reported once.
 */
import type { Steps } from '../plugins/time-slices.ts'
import { checkConcerns } from './check-concerns.ts'
import { checkPlugins } from './check-plugins.ts'
import { checkRoutes } from './check-routes.ts'
import { checkServices } from './check-services.ts'
import type { Checked } from './concern.ts'
import { checkForward } from './forward.ts'
import { checkListeners } from './listeners.ts'
import { checkGatewayAddresses } from './own-addresses.ts'
import { checkRouteConfig } from './route-config.ts'

export function* check(checked: Checked): Steps<void> {
  const { data, keys, report } = checked
  if (!report.usable('')) return
  if (report.usable('/listen')) yield* checkListeners(checked)
  yield* checkServices(checked)
  yield* checkForward(checked)
  checkGatewayAddresses(data, report)
  yield* checkPlugins(checked)
  if (report.usable('/consumers') && data.consumers.length > 0) {
    const providers = keys.edge.filter(({ provides }) => provides?.includes('consumer')).map(({ name }) => name)
    const who = [...providers, 'a plugin'].join(' or ')
    report.fault('/consumers', `cannot be declared in this version; ${who} identifies them`)
  }
  yield* checkConcerns(checked)
  if (report.usable('/routes')) {
    yield* checkRoutes(checked)
    yield* checkRouteConfig(checked)
  }
}
