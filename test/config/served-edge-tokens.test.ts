// slow: starts a gateway for each value
import { testSections, tokens } from './served.ts'

testSections(['edge'], (path) => tokens.test(path))
