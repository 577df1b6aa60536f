/**
 * Checks for rules that a schema cannot express, mostly between parts of the configuration. Values that have a fault already
 * are skipped, so that a mistake is reported once.
 */
import type { Steps } from '../plugins/time-slices.ts'
import { checkConcerns } from './check-concerns.ts'
import { checkPlugins } from './check-plugins.ts'
import { checkRoutes } from './check-routes.ts'
import { checkServices } from './check-services.ts'
import { checkTracing } from './check-tracing.ts'
import type { Checked } from './concern.ts'
import { checkConsumers } from './consumers.ts'
import { checkForward } from './forward.ts'
import { checkListeners } from './listeners.ts'
import { checkGatewayAddresses } from './own-addresses.ts'
import { checkRouteConfig } from './route-config.ts'

export function* check(checked: Checked): Steps<void> {
  const { data, report } = checked
  if (!report.usable('')) return
  if (report.usable('/listen')) yield* checkListeners(checked)
  yield* checkServices(checked)
  yield* checkForward(checked)
  checkTracing(checked)
  checkGatewayAddresses(data, report)
  yield* checkPlugins(checked)
  yield* checkConsumers(checked)
  yield* checkConcerns(checked)
  if (report.usable('/routes')) {
    yield* checkRoutes(checked)
    yield* checkRouteConfig(checked)
  }
}
