import { testSections } from './served.ts'

testSections(['listen', 'admin', 'redis', 'edge'])
