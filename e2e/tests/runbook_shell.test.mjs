// The shell of the camera runbook, as it is written there, against a server whose leases are in a real Redis:
// what it looks for it finds, what it repairs was not broken, and what it breaks heals.
//
// | of the runbook | scenario |
// |---|---|
// | issue 4: reference counting, manual cleanup | "the reservations in the store are the viewers", "a reservation that somebody deletes" |
// | issue 5: diagnosis, solution | "a counter is never wrong for long" |
// | issue 6: diagnosis, emergency fix | "the emergency fix" |
// | health check, detailed status, tracing, errors, debug info | "what the runbook looks at is there" |
// | complete reset, reset of one camera | "the complete reset", "the reset of one camera" |
// | validation: single viewer, multi-viewer, cleanup | "the three checklists" |
//
// Issues 1, 2 and 3 and the commands in place of this shell are in runbook.test.mjs.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';

import { LEFT } from '../harness/browser.mjs';
import { OldShell } from '../harness/old_shell.mjs';
import { Redis } from '../harness/redis.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const CAMERA = 'cam-001-sheikh-zayed';
const SOURCES = ['DUBAI_POLICE', 'METRO', 'PARKING', 'TAXI'].map((id) => ({ id, name: id, limit: 5 }));
const SCAN = `docker exec cctv-valkey valkey-cli --scan --pattern "stream:reservation:*"`;
const COUNTER = 'docker exec cctv-valkey valkey-cli GET stream:count:DUBAI_POLICE';
const STATS = `curl -s http://localhost:8086/api/v1/stream/stats | jq -c '.camera_stats[] | select(.camera_id == "${CAMERA}") | .viewer_count'`;
const DELETE_ALL = `docker exec cctv-valkey valkey-cli --scan --pattern "stream:reservation:*" | \\
  xargs docker exec cctv-valkey valkey-cli DEL`;

/** How soon the store and its mirrors are true again: the promise of the contract. */
const HEALED = { within: 5_000 };

/** A server with two cameras of two agencies, its store, and the runbook's shell. */
async function system(world) {
  const redis = await Redis.start(world);
  const picture = 'test://clock?width=320&height=180&fps=10&gop=10';
  const manifold = await world.manifold({
    sources: SOURCES,
    store: { url: redis.url },
    cameras: [
      { id: CAMERA, source: 'DUBAI_POLICE', url: picture, close_after: '1s' },
      { id: 'cam-002-union', source: 'METRO', url: picture, close_after: '1s' },
    ],
  });
  return { manifold, redis, shell: new OldShell(world, manifold, redis) };
}

/** A browser that plays a camera. */
async function browser(world, manifold, camera = CAMERA) {
  const viewer = await world.open(`${manifold.url}/?open=${camera}`);
  await viewer.plays(camera);
  return viewer;
}

const counter = (redis, source = 'DUBAI_POLICE') => redis.cli('GET', `stream:count:${source}`);

scenario('the reservations in the store are the viewers, and go with the last one (issue 4)', async (world) => {
  const { manifold, redis, shell } = await system(world);
  const page = await browser(world, manifold);
  const counted = await shell.lines(`${SCAN} | \\
    xargs -I {} sh -c 'echo "{}"; docker exec cctv-valkey valkey-cli HGET {} camera_id'`);
  assert.equal(counted.length, 2, 'one reservation, and its camera');
  assert.match(counted[0], /^stream:reservation:[0-9a-f-]{36}$/);
  assert.equal(counted[1], CAMERA);
  assert.deepEqual(await shell.lines('docker ps --filter "name=whip-pusher"'), [`whip-pusher-${CAMERA}`]);

  await page.close();

  await until('nothing is left', async () => (await shell.run(`${SCAN}; docker ps --filter "name=whip-pusher"`)) === '', LEFT);
  await until('the counter went down', async () => (await counter(redis)) === '0', LEFT);
  const log = 'docker logs cctv-go-api 2>&1 | grep -c "Last viewer disconnected"';
  await until('the log has the words', async () => (await shell.run(log)) === '1');
});

scenario('a reservation that somebody deletes ends its viewer, and no other (issue 4)', async (world) => {
  const { manifold, redis, shell } = await system(world);
  const first = await browser(world, manifold);
  const [doomed] = await redis.keys('stream:reservation:*');
  const second = await browser(world, manifold);
  const id = doomed.slice('stream:reservation:'.length);

  // Its puller is stopped beneath both, too, and comes back for who is still there.
  await shell.run(`docker stop whip-pusher-${CAMERA}
    docker exec cctv-valkey valkey-cli DEL "stream:reservation:${id}"`);

  const ended = 'its lease was deleted in the store';
  const why = async () => (await manifold.get(`/api/v1/why/${id}`)).sentence;
  await until('why says so', async () => (await why()).includes(ended), HEALED);
  assert.deepEqual(await redis.keys(`stream:*:${id}`), [], 'nothing of it is left');
  const { viewers } = await manifold.get(`/api/v1/why/${CAMERA}`);
  assert.ok(viewers.every(({ reservation_id }) => reservation_id !== id), 'it does not count any more');
  await first.close();
  await until('the other one is counted', async () => (await counter(redis)) === '1', LEFT);
  await second.showsWhatIsTakenAfter(Date.now(), CAMERA);
});

scenario('a puller that is stopped beneath its only viewer comes back for it (issue 4)', async (world) => {
  const { manifold, shell } = await system(world);
  const page = await browser(world, manifold);
  await shell.run(`docker stop whip-pusher-${CAMERA}`);
  const stopped = await manifold.get(`/api/v1/why/${CAMERA}`);
  assert.match(stopped.sentence, /its puller was stopped on request; it is tried again in \d s/);
  assert.equal((await manifold.camera(CAMERA)).pullers, 0);
  await page.showsWhatIsTakenAfter(Date.now(), CAMERA);
  assert.equal((await manifold.stats()).active_streams, 1, 'by the same reservation');
});

scenario('a counter is never wrong for long, and never what is checked (issue 5)', async (world) => {
  const { manifold, redis, shell } = await system(world);
  await manifold.reserve(CAMERA);
  const page = await browser(world, manifold);
  const actual = async () => Number(await shell.run(`${SCAN} | wc -l`));
  assert.equal(await actual(), 2);
  await until('both agree', async () => (await shell.run(COUNTER)) === '2', HEALED);

  // As if it had stayed at a higher number: it prevents nobody, and is true again by itself.
  for (const nonsense of ['5', '9999', '-1', 'nonsense']) {
    await redis.cli('SET', 'stream:count:DUBAI_POLICE', nonsense);
    const { status, json } = await manifold.reserve(CAMERA);
    assert.equal(status, 200, `with ${nonsense} in the counter there is room`);
    assert.equal((await manifold.release(json.reservation_id)).json.new_count, 2);
    await until(`${nonsense} is put right`, async () => (await shell.run(COUNTER)) === '2', HEALED);
  }

  // With nobody coming or going it is a repair, and counted as such.
  const repaired = async () =>
    Number(/^manifold_store_repairs_total\{kind="count"\} (\d+)/m.exec(await manifold.metrics())[1]);
  const before = await repaired();
  await redis.cli('SET', 'stream:count:DUBAI_POLICE', '7');
  await until('it is put right', async () => (await shell.run(COUNTER)) === '2' && (await repaired()) > before, HEALED);

  // What the runbook does about it is right, and changes nothing.
  const solution = `ACTUAL=$(docker exec cctv-valkey valkey-cli --scan --pattern "stream:reservation:*" | \\
    xargs -I {} sh -c 'docker exec cctv-valkey valkey-cli HGET {} source' | \\
    grep "DUBAI_POLICE" | wc -l)

  docker exec cctv-valkey valkey-cli SET stream:count:DUBAI_POLICE $ACTUAL`;
  assert.equal(await shell.run(solution), 'OK');
  assert.equal(await shell.run(COUNTER), '2');

  await page.close();
  await until('it decreases', async () => (await shell.run(COUNTER)) === '1', LEFT);
});

scenario('the emergency fix for two pullers, of which there is one (issue 6)', async (world) => {
  const { manifold, redis, shell } = await system(world);
  const pages = [await browser(world, manifold), await browser(world, manifold)];
  const names = 'docker ps --filter "name=whip-pusher" --format "{{.Names}}"';
  assert.deepEqual(await shell.lines(names), [`whip-pusher-${CAMERA}`]);
  const all = await shell.run(`${SCAN} | xargs -I {} sh -c 'echo "=== {} ==="; docker exec cctv-valkey valkey-cli HGETALL {}'`);
  assert.equal(all.match(/^=== /gm).length, 2);
  assert.equal(all.match(/^room_name\ncamera_cam-001-sheikh-zayed$/gm).length, 2);
  const before = await redis.keys('stream:reservation:*');

  await shell.run(`
    # Stop all WHIP containers
    docker ps --filter "name=whip-pusher" -q | xargs docker stop

    # Clear all reservations
    ${DELETE_ALL}

    # Reset counters
    docker exec cctv-valkey valkey-cli SET stream:count:DUBAI_POLICE 0
    docker exec cctv-valkey valkey-cli SET stream:count:METRO 0`);

  for (const key of before) {
    const why = async () => (await manifold.get(`/api/v1/why/${key.split(':')[2]}`)).sentence;
    await until('each was ended', async () => /deleted in the store/.test(await why()), HEALED);
  }
  for (const page of pages) await page.close();
  await until('nothing is left', async () => (await manifold.stats()).active_streams === 0, LEFT);

  // Reopen cameras from dashboard.
  await browser(world, manifold);
  assert.deepEqual(await shell.lines(names), [`whip-pusher-${CAMERA}`]);
  await until('one is counted', async () => (await counter(redis)) === '1', HEALED);
});

scenario('the complete reset leaves nothing, and who comes after it is served', async (world) => {
  const { manifold, redis, shell } = await system(world);
  for (let viewer = 0; viewer < 4; viewer += 1) await manifold.reserve(viewer % 2 ? CAMERA : 'cam-002-union');
  await manifold.cameraIs(CAMERA, 'live');

  const printed = await shell.run(`
    docker ps --filter "name=whip-pusher" -q | xargs docker stop 2>/dev/null
    ${DELETE_ALL}
    docker exec cctv-valkey valkey-cli --scan --pattern "stream:metadata:*" | \\
      xargs docker exec cctv-valkey valkey-cli DEL
    for SOURCE in DUBAI_POLICE METRO PARKING TAXI; do
      docker exec cctv-valkey valkey-cli SET "stream:count:$SOURCE" 0
    done
    docker-compose restart go-api stream-counter livekit`);
  assert.match(printed, /OK$/);

  const verified = `echo "Reservations: $(docker exec cctv-valkey valkey-cli --scan --pattern 'stream:reservation:*' | wc -l)"
    echo "Containers: $(docker ps --filter 'name=whip-pusher' -q | wc -l)"
    echo "Counters: $(docker exec cctv-valkey valkey-cli MGET stream:count:DUBAI_POLICE stream:count:METRO | xargs)"`;
  await until('a clean state', async () => (await shell.run(verified)) === 'Reservations: 0\nContainers: 0\nCounters: 0 0', HEALED);
  const forgotten = async () => (await redis.keys('stream:heartbeat:*')).length;
  await until('nor what the runbook forgot', async () => (await forgotten()) === 0, HEALED);
  await until('nobody is counted', async () => (await manifold.stats()).active_streams === 0, HEALED);
  const { json } = await manifold.reserve(CAMERA);
  assert.equal(json.current_usage, 1);
  await manifold.cameraIs(CAMERA, 'live');
});

scenario('the reset of one camera ends its viewers, and those of others stay', async (world) => {
  const { manifold, redis, shell } = await system(world);
  await manifold.reserve(CAMERA);
  await manifold.reserve(CAMERA);
  const other = await browser(world, manifold, 'cam-002-union');

  const printed = await shell.run(`CAMERA_ID="${CAMERA}"
    docker stop "whip-pusher-$CAMERA_ID" 2>/dev/null
    docker exec cctv-valkey valkey-cli --scan --pattern "stream:reservation:*" | \\
      xargs -I {} sh -c 'CAM=$(docker exec cctv-valkey valkey-cli HGET {} camera_id); \\
      if [ "$CAM" = "'$CAMERA_ID'" ]; then docker exec cctv-valkey valkey-cli DEL {}; fi'
    echo "Camera $CAMERA_ID reset complete"`);
  assert.match(printed, /reset complete$/);

  await until('its viewers are gone', async () => (await manifold.stats()).source_counts.DUBAI_POLICE === 0, HEALED);
  await until('the counters say so', async () => (await redis.cli('MGET', 'stream:count:DUBAI_POLICE', 'stream:count:METRO')) === '0\n1', HEALED);
  await until('its puller is gone', async () => (await shell.run('docker ps --filter "name=whip-pusher-cam-001"')) === '', HEALED);
  await other.advances('cam-002-union');
});

scenario('what the runbook looks at is there: health, status, rooms, tracing, errors, debug information', async (world) => {
  const { manifold, shell } = await system(world);
  const page = await browser(world, manifold);

  const health = `echo "Containers: $(docker ps --filter 'name=whip-pusher' -q | wc -l) | \\
Reservations: $(docker exec cctv-valkey valkey-cli --scan --pattern 'stream:reservation:*' | wc -l) | \\
DUBAI_POLICE: $(docker exec cctv-valkey valkey-cli GET stream:count:DUBAI_POLICE)"`;
  await until('the one line', async () => (await shell.run(health)) === 'Containers: 1 | Reservations: 1 | DUBAI_POLICE: 1');

  // The publisher is in the room, and is no viewer (issue 3).
  const rooms = await shell.run(`curl -s http://localhost:7880/rooms | jq -c '.rooms[] | {name, num_participants}'`);
  assert.equal(rooms, `{"name":"camera_${CAMERA}","num_participants":2}`);
  const room = await shell.run(`curl -s http://localhost:7880/rooms/camera_${CAMERA} | jq '.rooms[].num_participants'`);
  assert.equal(room, '2');
  assert.equal(await shell.run(STATS), '1');

  const traced = await shell.lines(`RESERVATION_ID=$(docker exec cctv-valkey valkey-cli --scan --pattern "stream:reservation:*" | \\
    xargs -I {} sh -c 'ID={}; CAM=$(docker exec cctv-valkey valkey-cli HGET {} camera_id); \\
    if [ "$CAM" = "${CAMERA}" ]; then echo \${ID#stream:reservation:}; fi')
    echo "Reservation ID: $RESERVATION_ID"
    docker logs cctv-go-api 2>&1 | grep "$RESERVATION_ID"`);
  assert.match(traced[0], /^Reservation ID: [0-9a-f-]{36}$/);
  assert.ok(traced.some((line) => line.includes('Creating new stream resources (first viewer)')), traced.join('\n'));

  const errors = await shell.lines('docker logs cctv-livekit 2>&1 | grep -E "(ERROR|DUPLICATE)" | tail -20 || true');
  assert.deepEqual(errors, [], 'nothing went wrong');

  await shell.run(`mkdir -p cctv-debug && cd cctv-debug
    docker-compose logs --tail 200 go-api > go-api.log
    docker ps > containers.txt
    curl -s http://localhost:8086/api/v1/stream/stats | jq > stream-stats.json
    curl -s http://localhost:7880/rooms | jq > livekit-rooms.json
    ${SCAN} | \\
      xargs -I {} sh -c 'echo "=== {} ==="; docker exec cctv-valkey valkey-cli HGETALL {}' > valkey-reservations.txt
    tar -czf ../cctv-debug.tar.gz .`);
  const list = execFileSync('tar', ['xzOf', world.file('cctv-debug.tar.gz')], { encoding: 'utf8' });
  assert.match(list, /"active_streams": 1/);
  assert.ok(list.includes(`whip-pusher-${CAMERA}`));
  await page.advances(CAMERA);
});

scenario('the three checklists: a viewer, two viewers, and nobody', async (world) => {
  const { manifold, redis, shell } = await system(world);
  const names = 'docker ps --filter "name=whip-pusher-cam-001" --format "{{.Names}}"';

  const first = await browser(world, manifold);
  assert.equal(await shell.run(STATS), '1', 'expected: viewer_count = 1');

  const second = await browser(world, manifold);
  await first.advances(CAMERA);
  assert.equal(await shell.run(STATS), '2', 'expected: viewer_count = 2');
  assert.deepEqual(await shell.lines(names), [`whip-pusher-${CAMERA}`], 'expected: one container only');
  const identities = (await manifold.get(`/rooms/camera_${CAMERA}`)).rooms[0].participants.map(({ identity }) => identity);
  const reserved = (await redis.keys('stream:reservation:*')).map((key) => `viewer_${key.split(':')[2]}`);
  assert.deepEqual(identities.filter((identity) => identity.startsWith('viewer_')).sort(), reserved.sort(), 'issue 2');

  await second.close();
  await first.advances(CAMERA);
  await first.close();
  await until('expected: no containers, empty', async () => (await shell.run(`${names}; ${SCAN}`)) === '', LEFT);
});
