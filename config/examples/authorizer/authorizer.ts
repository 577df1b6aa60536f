/** Accepts tickets that a service has issued: the service `tickets` responds with the owner of a ticket, or with null. */
import { defineAuthorizer } from 'jingwei/plugin'

interface Ticket {
  readonly owner: string
  readonly teams: readonly string[]
}

export default defineAuthorizer<{ teams?: readonly string[] }>(async (request, { options, signal }) => {
  const id = request.headers['x-ticket']
  // Without credentials of this kind, another method may accept the request; else the client gets 401.
  if (id === undefined) return null
  if (!/^[\w-]{8,64}$/.test(String(id))) return { refuse: 401, message: 'The ticket is malformed' }
  const ticket = await request.mesh.json<Ticket | null>('tickets', `/tickets/${id}`, { signal })
  if (ticket === null) return { refuse: 401, message: 'The ticket is unknown' }
  const { teams } = options
  if (teams !== undefined && !ticket.teams.some((team) => teams.includes(team))) return { refuse: 403 }
  return { consumer: { id: ticket.owner, groups: ticket.teams }, headers: { 'x-teams': ticket.teams } }
})
