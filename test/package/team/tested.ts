/** A gateway under test. */
import { testGateway } from 'jingwei/testing'

await using gateway = await testGateway({ config: 'gateway.yaml', services: { orders: { json: [7] } } })
console.log((await gateway.inject('/orders')).body)
