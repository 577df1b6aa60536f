import type { Checked } from '../../../config/concern.ts'
import { didYouMean } from '../../../config/nearest.ts'

/** Checks the name of another service that is to be called: it must be known, and not be `service` itself. */
export function checkOtherService(at: string, name: string, service: string | null, { data, report }: Checked): void {
  if (!report.usable('/services')) return
  if (name === service) report.fault(at, `"${name}" is the service itself; name another one`)
  else if (!Object.hasOwn(data.services, name)) {
    report.fault(at, `unknown service "${name}"${didYouMean(name, Object.keys(data.services))}`)
  }
}
