// BullMQ's worker: node bullmq_worker.mjs FOLDER REDIS URL RATE CONCURRENCY
// FOLDER holds node_modules. Posts one job a request over kept connections, under BullMQ's limiter,
// which is global: all workers of the queue share it.
import { Agent, request } from 'node:http'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [folder, connectTo, url, rate, concurrency] = process.argv.slice(2)
const { Worker } = createRequire(join(folder, 'here.js'))('bullmq')
const agent = new Agent({ keepAlive: true, maxSockets: Number(concurrency) })

function post(body) {
  return new Promise((resolve, reject) => {
    const headers = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) }
    const call = request(url, { method: 'POST', agent, headers }, (response) => {
      response.resume()
      response.on('end', () =>
        response.statusCode < 300 ? resolve() : reject(new Error(`HTTP ${response.statusCode}`)),
      )
    })
    call.on('error', reject)
    call.end(body)
  })
}

const worker = new Worker('pacing', (job) => post(JSON.stringify(job.data)), {
  connection: { url: connectTo, maxRetriesPerRequest: null },
  concurrency: Number(concurrency),
  limiter: { max: Number(rate), duration: 1000 },
})
worker.on('error', (error) => console.error(error))
worker.on('failed', (_, error) => console.error(error))

const parent = process.ppid
setInterval(() => process.ppid === parent || process.exit(1), 1000)
process.on('SIGTERM', async () => {
  await worker.close()
  process.exit(0)
})
