// slow: takes about 10 s
import { testSections } from './served.ts'

testSections(['forward'])
