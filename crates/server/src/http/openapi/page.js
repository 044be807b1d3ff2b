// Shows openapi.json: each call with its parameters, its body and its answers, and the shapes they have.
// Texts are put in as texts, never as markup.

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

const make = (name, ...children) => {
  const element = document.createElement(name);
  element.append(...children);
  return element;
};

const root = document.getElementById('api');

fetch('openapi.json')
  .then((response) => response.json())
  .then((api) => show(api))
  .catch((error) => root.append(make('p', `openapi.json cannot be read: ${error}`)))
  .finally(() => root.removeAttribute('aria-busy'));

function show(api) {
  root.append(make('p', api.info.description), make('p', `Version ${api.info.version}. `, link()));
  const calls = Object.entries(api.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ path, method, ...item[method] })),
  );
  for (const tag of api.tags) {
    root.append(make('h2', tag.name), make('p', tag.description));
    root.append(...calls.filter((call) => call.tags?.includes(tag.name)).map((call) => section(api, call)));
  }
}

function link() {
  const element = make('a', 'openapi.json');
  element.href = 'openapi.json';
  return element;
}

function section(api, call) {
  const inside = make('div');
  inside.className = 'inside';
  if (call.description) inside.append(make('p', call.description));
  if (call.parameters?.length > 0) {
    inside.append(make('h3', 'Parameters'));
    inside.append(table(call.parameters.map(({ name, in: place, description }) => [name, place, description ?? ''])));
  }
  const body = Object.values(call.requestBody?.content ?? {})[0];
  if (body) inside.append(make('h3', 'Body'), shape(api, body.schema));
  inside.append(make('h3', 'Answers'));
  for (const [status, answer] of Object.entries(call.responses)) {
    inside.append(make('p', make('b', status), ` ${answer.description}`));
    const content = answer.content?.['application/json'];
    if (content) inside.append(shape(api, content.schema));
  }
  const name = make('summary', make('b', call.method.toUpperCase()), make('code', call.path), make('span', call.summary ?? ''));
  return make('details', name, inside);
}

function table(rows) {
  return make('table', ...rows.map((row) => make('tr', ...row.map((cell) => make('td', cell)))));
}

function shape(api, schema) {
  return make('pre', JSON.stringify(outline(api, schema, []), null, 2));
}

/** A value of the shape's kind, with types in the place of values; what contains itself is named. */
function outline(api, schema, above) {
  if (schema === undefined) return null;
  if (schema.$ref) {
    const name = schema.$ref.split('/').at(-1);
    if (above.includes(name)) return name;
    return outline(api, api.components.schemas[name], [...above, name]);
  }
  const either = schema.oneOf ?? schema.anyOf;
  if (either) return outline(api, either.find(({ type }) => type !== 'null') ?? either[0], above);
  if (schema.allOf) return Object.assign({}, ...schema.allOf.map((part) => outline(api, part, above)));
  if (schema.enum) return schema.enum.join(' | ');
  if (schema.properties) {
    const entries = Object.entries(schema.properties);
    return Object.fromEntries(entries.map(([name, part]) => [name, outline(api, part, above)]));
  }
  if (schema.items) return [outline(api, schema.items, above)];
  if (typeof schema.additionalProperties === 'object') return { '…': outline(api, schema.additionalProperties, above) };
  return [schema.type].flat().join(' | ');
}
