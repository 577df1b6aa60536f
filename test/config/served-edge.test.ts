// slow: starts a gateway for each value
import { access, credentials, logins, testSections } from './served.ts'

const others = [access, credentials, logins]
testSections(
  ['listen', 'admin', 'redis', 'tracing', 'metricsPush', 'edge'],
  (path) => !others.some((keys) => keys.test(path))
)
