// Leases in a real Redis, and everything that people and machines do to it while fifty watch.

import assert from 'node:assert/strict';

import { Authority } from '../harness/certificates.mjs';
import { Load } from '../harness/load.mjs';
import { Cluster, Redis, SentinelGroup, redisWithTls } from '../harness/redis.mjs';
import { scenario } from '../harness/world.mjs';
import { holds, pause, until } from '../harness/wait.mjs';

const VIEWERS = 50;

const camera = { id: 'cam-1', url: 'test://clock?width=320&height=180&fps=10&gop=10', close_after: '1s' };

/** A manifold on a store. */
const on = (world, url, store = {}, rest = {}) =>
  world.manifold({ cameras: [camera], store: { url, ...store }, ...rest });

/** Fifty who watch; ended with the world. */
async function watchers(world, manifold, count = VIEWERS) {
  const load = new Load(world, [
    ...['--whep', `${manifold.url}/whep/cam-1`, '--reserve', manifold.url, '--viewers', `${count}`],
    ...['--rate', '25', '--duration', '170s', '--quiet'],
  ]);
  await until('all watch', async () => (await connected(manifold)) >= count, {
    within: 60_000,
    show: async () => [await connected(manifold), load.child.tail(5)],
  });
  return load;
}

async function connected(manifold) {
  const text = await manifold.metrics();
  return Number(text.match(/^manifold_viewers_connected (\d+)/m)?.[1]);
}

const repairs = async (manifold, kind) =>
  Number((await manifold.metrics()).match(new RegExp(`^manifold_store_repairs_total\\{kind="${kind}"\\} (\\d+)`, 'm'))[1]);

/** That the count for people, the truth and the server agree. */
async function countIs(manifold, store, expected, within = 5_000) {
  const seen = async () => ({
    shown: await store.cli('GET', 'stream:count:TEST'),
    leases: Number(await store.cli('ZCARD', 'stream:leases')),
    active: (await manifold.stats()).active_streams,
  });
  await until(
    `the count is ${expected}`,
    async () => {
      const { shown, leases, active } = await seen();
      return shown === `${expected}` && leases === expected && active === expected;
    },
    { within, show: seen },
  );
}

scenario('fifty watch while counters are spoilt, keys deleted, everything flushed, and scripts forgotten', async (world) => {
  const redis = await Redis.start(world);
  const manifold = await on(world, redis.url);
  const page = await world.open(`${manifold.url}/?open=cam-1`);
  await page.plays('cam-1');
  const [own] = await redis.keys('stream:reservation:*');
  const load = await watchers(world, manifold, VIEWERS);
  await countIs(manifold, redis, VIEWERS + 1);

  await redis.cli('SET', 'stream:count:TEST', '-3');
  await countIs(manifold, redis, VIEWERS + 1);
  await redis.cli('SET', 'stream:count:TEST', 'ten thousand');
  await countIs(manifold, redis, VIEWERS + 1);
  await redis.cli('DEL', 'stream:count:TEST');
  await redis.cli('LPUSH', 'stream:count:TEST', 'x');
  await countIs(manifold, redis, VIEWERS + 1);

  await redis.cli('SCRIPT', 'FLUSH');
  const { json: more } = await manifold.reserve('cam-1');
  await countIs(manifold, redis, VIEWERS + 2);
  assert.equal((await manifold.release(more.reservation_id)).json.new_count, VIEWERS + 1);

  for (const key of ['stream:leases', 'stream:records', 'stream:index', 'stream:epoch']) {
    await redis.cli('DEL', key);
    await until(`${key} is back`, async () => (await redis.cli('EXISTS', key)) === '1');
    await countIs(manifold, redis, VIEWERS + 1);
  }
  for (const key of ['stream:leases', 'stream:index']) {
    await redis.cli('SET', key, 'of somebody else');
    const aside = await until('the strange key is put aside', async () => (await redis.keys(`${key}:foreign:*`))[0]);
    assert.equal(await redis.cli('GET', aside), 'of somebody else', 'it is put aside, not deleted');
    await countIs(manifold, redis, VIEWERS + 1);
  }

  await redis.cli('FLUSHALL');
  await countIs(manifold, redis, VIEWERS + 1);
  await manifold.child.says(/the store was emptied/);
  await manifold.child.says(/leases that the store had lost were put back/);

  assert.equal(await connected(manifold), VIEWERS + 1, 'nobody was cut off');
  await page.advances('cam-1', 10);
  assert.ok(load.child.alive);
  await until('each lease is counted as restored', async () => (await repairs(manifold, 'restored')) >= VIEWERS + 1);
  await until('each count is counted as repaired', async () => (await repairs(manifold, 'count')) >= 3);

  // Five of the fifty are deleted: they end, the others stay. The page would come back.
  const others = (await redis.keys('stream:reservation:*')).filter((key) => key !== own);
  await redis.cli('DEL', ...others.slice(0, 5));
  await countIs(manifold, redis, VIEWERS - 4);
  await until('the five are cut off', async () => (await connected(manifold)) === VIEWERS - 4, { within: 5_000 });
  await until('they are counted', async () => (await repairs(manifold, 'deleted')) === 5);
  await holds('the others stay', async () => (await connected(manifold)) === VIEWERS - 4, 3_000);
});

scenario('fifty watch while the store is restarted, killed, slow and full', async (world) => {
  const redis = await Redis.start(world);
  const manifold = await on(world, redis.url);
  const page = await world.open(`${manifold.url}/?open=cam-1`);
  await page.plays('cam-1');
  await watchers(world, manifold);
  await countIs(manifold, redis, VIEWERS + 1);

  await redis.restart();
  await countIs(manifold, redis, VIEWERS + 1);

  await redis.kill();
  await until('it says that the store is away', async () => {
    const { store } = await manifold.get('/health');
    return !store.available && /cannot be reached/.test(store.reason);
  });
  const { status, json: first } = await manifold.reserve('cam-1');
  assert.equal(status, 200, 'by its own view of the quota');
  await redis.launch();
  await countIs(manifold, redis, VIEWERS + 2);
  await until('it says that the store is there', async () => (await manifold.get('/health')).store.available);
  assert.equal(await redis.cli('HGET', `stream:reservation:${first.reservation_id}`, 'camera_id'), 'cam-1');
  assert.equal((await manifold.release(first.reservation_id)).json.new_count, VIEWERS + 1);

  const asleep = redis.cli('DEBUG', 'SLEEP', '6');
  await until('the store sleeps', () => Promise.race([redis.cli('PING').then(() => false), pause(500).then(() => true)]));
  const { status: slow, json: second } = await manifold.reserve('cam-1');
  assert.equal(slow, 200, 'answered while the store sleeps');
  await asleep;
  await countIs(manifold, redis, VIEWERS + 2);
  await manifold.release(second.reservation_id);

  await redis.cli('CONFIG', 'SET', 'maxmemory', '1');
  await until('it says that the store is full', async () => /is full/.test((await manifold.get('/health')).store.reason));
  const { status: full, json: third } = await manifold.reserve('cam-1');
  assert.equal(full, 200);
  await redis.cli('CONFIG', 'SET', 'maxmemory', '0');
  await countIs(manifold, redis, VIEWERS + 2);
  await manifold.release(third.reservation_id);

  await countIs(manifold, redis, VIEWERS + 1);
  assert.equal(await connected(manifold), VIEWERS + 1, 'nobody was cut off');
  await page.advances('cam-1', 10);
});

scenario('a limit is changed in the store, and what is none is not obeyed', async (world) => {
  const redis = await Redis.start(world);
  const sources = [{ id: 'TEST', name: 'Test', name_ar: 'اختبار', limit: 2 }];
  const manifold = await on(world, redis.url, {}, { sources });
  const statusOf = async () => (await manifold.reserve('cam-1')).status;
  assert.deepEqual([await statusOf(), await statusOf(), await statusOf()], [200, 200, 429]);

  await redis.cli('SET', 'stream:limit:TEST', '3');
  assert.deepEqual([await statusOf(), await statusOf()], [200, 429], 'at once');
  await until('the limit is seen', async () => (await manifold.stats()).source_stats.TEST.limit === 3);

  const told = () => manifold.logs.split('a limit in the store is no number').length - 1;
  for (const [before, wrong] of ['-1', 'many', '3.5', '99999999999'].entries()) {
    await redis.cli('SET', 'stream:limit:TEST', wrong);
    assert.equal(await statusOf(), 429, `${wrong}: the last good one holds`);
    await until('it is told, each once', () => told() === before + 1, { show: told });
  }
  await redis.cli('DEL', 'stream:limit:TEST');
  await redis.cli('LPUSH', 'stream:limit:TEST', 'x');
  assert.equal(await statusOf(), 429);

  await redis.cli('SET', 'stream:limit:TEST', '0');
  const { json } = await manifold.reserve('cam-1');
  assert.deepEqual([json.error.current, json.error.limit], [3, 0]);
  await redis.cli('DEL', 'stream:limit:TEST');
  await until('the configured one holds again', async () => (await manifold.stats()).source_stats.TEST.limit === 2);
});

scenario('with on_store_loss = refuse nobody new comes in while the store is away, and who watches stays', async (world) => {
  const redis = await Redis.start(world);
  const manifold = await on(world, redis.url, { on_store_loss: 'refuse' });
  const page = await world.open(`${manifold.url}/?open=cam-1`);
  await page.plays('cam-1');
  await redis.kill();
  await until('it is refused', async () => {
    const { status, text } = await manifold.reserve('cam-1');
    return status === 503 && /store/.test(text);
  });
  await page.advances('cam-1', 10);
  await redis.launch();
  await until('it is granted again', async () => (await manifold.reserve('cam-1')).status === 200, { within: 5_000 });
  await countIs(manifold, redis, 2);
});

scenario('the keys are those of the contract, with their lives', async (world) => {
  const redis = await Redis.start(world);
  const manifold = await on(world, redis.url);
  const { json } = await manifold.reserve('cam-1', 'ali');
  const id = json.reservation_id;
  const hash = (await redis.cli('HGETALL', `stream:reservation:${id}`)).split('\n');
  const fields = Object.fromEntries(hash.flatMap((word, place) => (place % 2 ? [] : [[word, hash[place + 1]]])));
  assert.deepEqual(
    { ...fields, node: typeof fields.node, created_at: 0, expires_at: 0 },
    { camera_id: 'cam-1', source: 'TEST', user_id: 'ali', room_name: 'camera_cam-1', node: 'string', created_at: 0, expires_at: 0 },
  );
  assert.equal(fields.expires_at - fields.created_at, 30_000);
  assert.equal(await redis.cli('HGET', `stream:metadata:${id}`, 'ingress_id'), 'whip-pusher-cam-1');
  assert.equal(await redis.cli('GET', 'stream:count:TEST'), '1');
  const ttl = Number(await redis.cli('TTL', `stream:heartbeat:${id}`));
  assert.ok(ttl > 25 && ttl <= 30, `${ttl} s`);

  await manifold.release(id);
  assert.deepEqual(await redis.keys(`stream:*:${id}`), []);
  assert.equal(await redis.cli('GET', 'stream:count:TEST'), '0');
});

scenario('what ended is not ended again, and what ran out is not renewed', async (world) => {
  const redis = await Redis.start(world);
  const manifold = await on(world, redis.url);
  const [twice, silent, other] = await Promise.all([1, 2, 3].map(async () => (await manifold.reserve('cam-1')).json));
  const beat = (id) => manifold.call('POST', `/api/v1/stream/heartbeat/${id}`, { body: { extend_ttl: 3600 } });
  assert.equal((await manifold.release(twice.reservation_id)).status, 200);
  const never = '67e55044-10b1-426f-9247-bb680e5fe0c8';
  for (const id of [twice.reservation_id, never, 'no-reservation']) {
    assert.equal((await manifold.release(id)).status, 404);
    assert.equal((await beat(id)).status, 404);
  }
  await countIs(manifold, redis, 2);

  await until(
    'one runs out, while the other is renewed',
    async () => {
      assert.equal((await beat(other.reservation_id)).status, 200);
      return (await redis.cli('ZSCORE', 'stream:leases', silent.reservation_id)) === '';
    },
    { within: 40_000 },
  );
  assert.equal((await beat(silent.reservation_id)).status, 404);
  assert.equal((await manifold.release(silent.reservation_id)).status, 404);
  await countIs(manifold, redis, 1);
});

scenario('a store that is not there at the start is waited for; a wrong password ends the start', async (world) => {
  const redis = await Redis.start(world, ['--requirepass', 'correct-horse']);
  await assert.rejects(
    on(world, `redis://:wrong-secret@127.0.0.1:${redis.port}`),
    (error) => /refuses user or password of `store.url`/.test(error.message) && !/wrong-secret/.test(error.message),
  );

  await redis.kill();
  const manifold = await on(world, `redis://:correct-horse@127.0.0.1:${redis.port}`);
  await until('it says that the store is away', async () => !(await manifold.get('/health')).store.available);
  assert.equal((await manifold.reserve('cam-1')).status, 200);
  await redis.launch();
  await until('the store is found', async () => (await manifold.get('/health')).store.available);
  assert.doesNotMatch(manifold.logs, /correct-horse/);
});

scenario('two servers share one account, and what one ends the other hears', async (world) => {
  const redis = await Redis.start(world);
  const sources = [{ id: 'TEST', name: 'Test', name_ar: 'اختبار', limit: 2 }];
  const first = await on(world, redis.url, {}, { sources });
  const second = await on(world, redis.url, { data_dir: world.file('data-2') }, { sources });
  const { json } = await first.reserve('cam-1');
  assert.equal((await second.reserve('cam-1')).json.current_usage, 2);
  assert.equal((await first.reserve('cam-1')).status, 429);
  assert.equal((await second.release(json.reservation_id)).json.new_count, 1);
  await first.child.says(/reservation ended/);
  await until('one is left there too', async () => (await first.stats()).active_streams === 1);
});

scenario('a cluster of three keeps the leases on one of its servers', async (world) => {
  const cluster = await Cluster.start(world);
  const manifold = await on(world, cluster.url);
  const { json } = await manifold.reserve('cam-1');
  assert.equal(await cluster.cli('GET', '{manifold}stream:count:TEST'), '1');
  assert.equal(await cluster.cli('HGET', `{manifold}stream:reservation:${json.reservation_id}`, 'source'), 'TEST');
  for (const node of cluster.nodes) await node.cli('SCRIPT', 'FLUSH');
  assert.equal((await manifold.call('POST', `/api/v1/stream/heartbeat/${json.reservation_id}`, { body: {} })).status, 200);
  for (const node of cluster.nodes) await node.cli('FLUSHALL');
  await until('it is put back', async () => (await cluster.cli('GET', '{manifold}stream:count:TEST')) === '1', {
    within: 5_000,
  });
  assert.equal((await manifold.release(json.reservation_id)).json.new_count, 0);
});

scenario('a cluster loses the leader that has the leases: who watches keeps watching, and the account goes on', async (world) => {
  const cluster = await Cluster.start(world);
  const { id, node: leader } = await cluster.leaderOf('{manifold}stream:leases');
  const replica = await cluster.addReplica(id);
  const manifold = await on(world, cluster.url);
  const page = await world.open(`${manifold.url}/?open=cam-1`);
  await page.plays('cam-1');
  await watchers(world, manifold, 10);
  const { json: first } = await manifold.reserve('cam-1');
  const shows = async (expected, within) =>
    until(
      `the count is ${expected}`,
      async () => (await cluster.cli('GET', '{manifold}stream:count:TEST')) === `${expected}`,
      { within, show: () => cluster.cli('GET', '{manifold}stream:count:TEST') },
    );
  await shows(12);

  await leader.kill();
  await until('the replica leads', async () => (await replica.cli('ROLE')).startsWith('master'), { within: 30_000 });
  await until('the store is back', async () => (await manifold.get('/health')).store.available, { within: 10_000 });
  assert.equal((await manifold.reserve('cam-1')).status, 200);
  await shows(13, 5_000);
  assert.equal((await manifold.release(first.reservation_id)).json.new_count, 12);
  assert.equal(await replica.cli('ZCARD', '{manifold}stream:leases'), '12');
  assert.equal(await connected(manifold), 11, 'nobody was cut off');
  await page.advances('cam-1', 10);
});

scenario('Sentinel makes the replica the leader: who watches keeps watching, and the account goes on', async (world) => {
  const group = await SentinelGroup.start(world);
  const manifold = await on(world, group.url);
  const page = await world.open(`${manifold.url}/?open=cam-1`);
  await page.plays('cam-1');
  await countIs(manifold, group.leader, 1);

  await group.leader.kill();
  await until('the replica leads', async () => (await group.replica.cli('ROLE')).startsWith('master'), { within: 30_000 });
  await countIs(manifold, group.replica, 1, 10_000);
  await page.advances('cam-1', 10);
  assert.equal((await manifold.reserve('cam-1')).status, 200);
  await countIs(manifold, group.replica, 2);
});

scenario('Sentinels ask for a password of their own', async (world) => {
  const group = await SentinelGroup.start(world, 'sentinels-own-secret');
  await assert.rejects(
    on(world, group.url, { sentinel_password: 'not-that-secret' }),
    (error) => /store.sentinel_password/.test(error.message) && !/not-that-secret/.test(error.message),
  );
  const manifold = await on(world, group.url, { sentinel_password: 'sentinels-own-secret' });
  assert.equal((await manifold.reserve('cam-1')).status, 200);
  await countIs(manifold, group.leader, 1);
  assert.doesNotMatch(manifold.logs, /sentinels-own-secret/);
});

scenario('a store by TLS: its authority is trusted by file, and another one ends the start with a sentence', async (world) => {
  const authority = await Authority.make(world, 'authority');
  const stranger = await Authority.make(world, 'stranger');
  const redis = await redisWithTls(world, authority);
  for (const [ca, sentence] of [
    [stranger.file, /the certificate of the store rediss:.* is not trusted: .*`store.ca`/],
    [undefined, /the certificate of the store rediss:.* is not trusted: .*`store.ca`/],
    [world.file('nowhere.crt'), /`store.ca` is of no use: .*nowhere.crt: No such file/],
    [stranger.key, /`store.ca` is of no use: .*there is no certificate in it/],
  ]) {
    await assert.rejects(on(world, redis.tlsUrl, ca ? { ca } : {}), (error) => sentence.test(error.message));
  }

  const manifold = await on(world, redis.tlsUrl, { ca: authority.file });
  const { json } = await manifold.reserve('cam-1');
  await countIs(manifold, redis, 1);
  await redis.restart();
  await countIs(manifold, redis, 1);
  assert.equal((await manifold.release(json.reservation_id)).json.new_count, 0);
});

scenario('Valkey keeps leases as Redis does', async (world) => {
  const valkey = await Redis.start(world, [], 'valkey');
  assert.match(await valkey.cli('INFO', 'server'), /server_name:valkey/);
  const manifold = await on(world, valkey.url);
  const page = await world.open(`${manifold.url}/?open=cam-1`);
  await page.plays('cam-1');
  await watchers(world, manifold, 10);
  const { json } = await manifold.reserve('cam-1');
  await countIs(manifold, valkey, 12);
  await valkey.cli('FLUSHALL');
  await valkey.cli('SCRIPT', 'FLUSH');
  await countIs(manifold, valkey, 12);
  await valkey.kill();
  await valkey.launch();
  await countIs(manifold, valkey, 12);
  assert.equal((await manifold.release(json.reservation_id)).json.new_count, 11);
  await page.advances('cam-1', 10);
});
