// A producer in Node: one Redis command a message, by the package `redis` (npm install redis@5).
//
//   node producer.mjs DESTINATION PAYLOAD [OPTIONS]
//
// PAYLOAD is JSON; OPTIONS too: {"id", "priority", "tenant", "campaign", "not_before", ...}.
import { randomUUID } from 'node:crypto'
import { realpathSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { createClient, ErrorReply } from 'redis'

const TRIES = 5

// Resolves to {id, answer}, where answer is 'new', or 'already' (the same was accepted before).
// Rejects with an ErrorReply where Paceline refuses it: its first word tells why (PLINVALID,
// PLTOOBIG, PLCONFLICT, PLUNKNOWN; of PLFULL and PLDRAINING: not now).
//
// A payload that is a string is JSON already, and goes as it is; others are made into text once. The
// id is made before the first try.
// A connection lost on the way leaves open whether the message was accepted; the same id and the
// same bytes again cannot send it twice.
export async function send (client, destination, payload, options = {}) {
  const id = options.id ?? randomUUID()
  const text = typeof payload === 'string' ? payload : JSON.stringify(payload)
  const call = ['FCALL', 'paceline_enqueue', '1', `{${destination}}`, text,
    JSON.stringify({ ...options, id })]
  for (let attempt = 1; ; attempt++) {
    try {
      return { id, answer: await client.sendCommand(call) }
    } catch (error) {
      if (error instanceof ErrorReply || attempt === TRIES) throw error
      console.error(`try ${attempt} of message ${id}: ${error.message}`)
      await sleep(100 * 2 ** attempt * (1 + Math.random()))
    }
  }
}

// The client connects again by itself. What was written to a lost connection it rejects, and does
// not repeat: that is left to send().
export async function connect (url) {
  let connected = false
  const client = createClient({
    url,
    disableOfflineQueue: true, // or a send() while Redis is away would wait for ever
    pingInterval: 4000, // keeps an idle connection from looking like a silent server
    socket: {
      connectTimeout: 2000,
      socketTimeout: 10000,
      // The first connection must come about; one that is lost is sought for ever.
      reconnectStrategy: (retries, cause) =>
        connected || retries < TRIES ? Math.min(50 * 2 ** retries, 2000) : cause
    }
  })
  client.on('error', error => console.error(`redis: ${error.message}`))
  await client.connect()
  connected = true
  return client
}

if (process.argv[1] && realpathSync(process.argv[1]) === import.meta.filename) {
  const [destination, payload, options = '{}'] = process.argv.slice(2)
  if (payload === undefined) {
    console.error('usage: node producer.mjs DESTINATION PAYLOAD [OPTIONS]')
    process.exit(2)
  }
  let client
  try {
    JSON.parse(payload) // only looked at: what is sent are the characters as they were given
    const given = JSON.parse(options)
    if (given?.constructor !== Object) throw new TypeError('OPTIONS must be a JSON object')
    client = await connect(process.env.PACELINE_REDIS_URL ?? 'redis://127.0.0.1:6379/0')
    console.log(JSON.stringify(await send(client, destination, payload, given)))
  } catch (error) {
    console.error(`not accepted: ${error.message}`)
    process.exitCode = 1
  } finally {
    client?.destroy()
  }
}
