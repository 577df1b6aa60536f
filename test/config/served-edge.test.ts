// slow: starts a gateway for each value
import { access, credentials, testSections } from './served.ts'

testSections(['listen', 'admin', 'redis', 'edge'], (path) => !access.test(path) && !credentials.test(path))
