// slow: starts a gateway for each value
import { logins, testSections } from './served.ts'

testSections(['edge'], (path) => logins.test(path))
