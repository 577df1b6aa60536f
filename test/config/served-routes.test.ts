import { testSections } from './served.ts'

testSections(['services', 'routes'])
