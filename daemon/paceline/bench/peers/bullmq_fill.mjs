// BullMQ's producer: node bullmq_fill.mjs FOLDER REDIS COUNT
// FOLDER holds node_modules. Jobs are added in bulk, as BullMQ's documentation advises.
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [folder, url, count] = process.argv.slice(2)
const { Queue } = createRequire(join(folder, 'here.js'))('bullmq')
const PIECE = 500
// As paceline.bench.body: compact JSON of 1,000 bytes.
const text = 'y'.repeat(1000 - '{"n":1000000,"text":""}'.length)

const queue = new Queue('pacing', { connection: { url } })
for (let first = 0; first < Number(count); first += PIECE) {
  const length = Math.min(PIECE, Number(count) - first)
  await queue.addBulk(
    Array.from({ length }, (_, i) => ({ name: 'post', data: { n: 1000000 + first + i, text } })),
  )
}
await queue.close()
