// slow: starts a gateway for each value
import { credentials, testSections } from './served.ts'

testSections(['edge'], (path) => credentials.test(path))
