// slow: starts a gateway for each value
import { access, testSections } from './served.ts'

testSections(['edge'], (path) => access.test(path))
