// Which of a browser's tabs this is. Knows: the header that says it with every request
// (services/visitor.py). Does not know: what a tab owns.
//
// A tab keeps its name when it is reloaded. A new one takes up that of the tab that was used last
// and is no longer open, and with it its job, its picture and its form. A duplicated tab begins
// with the name of its original, which is taken: it gets one of its own.

const MAX_REMEMBERED = 50;
const FIRST = ''; // what was made before tabs had names

// A browser may forbid storage: then every load is a new tab.
const read = (storage, key) => {
  try {
    return window[storage].getItem(key);
  } catch {
    return null;
  }
};
const write = (storage, key, value) => {
  try {
    window[storage].setItem(key, value);
  } catch {}
};
const readNames = key => {
  try {
    const names = JSON.parse(read('localStorage', key));
    return Array.isArray(names) ? names.filter(name => typeof name === 'string') : [];
  } catch {
    return [];
  }
};
const putFirst = (key, name) => {
  const names = readNames(key);
  if (names[0] === name) return;
  const others = names.filter(other => other !== name);
  write('localStorage', key, JSON.stringify([name, ...others].slice(0, MAX_REMEMBERED)));
};

// A lock is held until the tab is gone, however it goes. Browsers have locks only where the page
// comes by https or from the machine itself; elsewhere a tab says when it leaves.
const claim = (name, options) => {
  if (navigator.locks)
    return new Promise(resolve => {
      const hold = lock => {
        resolve(lock !== null);
        return lock && new Promise(() => {});
      };
      navigator.locks.request(`studio-tab-${name}`, options, hold).catch(() => resolve(false));
    });
  const left = readNames('studio-tabs-left');
  const isFree = left.includes(name) || (name === FIRST && !read('localStorage', 'studio-tabs'));
  const others = left.filter(other => other !== name);
  if (isFree) write('localStorage', 'studio-tabs-left', JSON.stringify(others));
  return Promise.resolve(isFree);
};
// The document that a reload replaces may hold its lock for a moment longer.
const claimAgain = name => claim(name, {signal: AbortSignal.timeout(500)});

const chooseName = async () => {
  const former = read('sessionStorage', 'studio-tab');
  if (former !== null && (await claimAgain(former))) return former;
  for (const name of [...readNames('studio-tabs'), FIRST])
    if (await claim(name, {ifAvailable: true})) return name;
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  const name = [...bytes].map(byte => byte.toString(16).padStart(2, '0')).join('');
  await claim(name, {ifAvailable: true});
  return name;
};
const chosen = chooseName().then(name => {
  write('sessionStorage', 'studio-tab', name);
  putFirst('studio-tabs', name);
  if (!navigator.locks) addEventListener('pagehide', () => putFirst('studio-tabs-left', name));
  return name;
});

const plainFetch = window.fetch.bind(window);
window.fetch = async (resource, options) => {
  const url = new URL(resource.url ?? resource, location.href);
  if (url.origin !== location.origin || !url.pathname.includes('/gradio_api/'))
    return plainFetch(resource, options);
  const request = new Request(resource, options);
  const name = await chosen;
  request.headers.set('X-Studio-Tab', name);
  if (url.pathname.endsWith('/queue/join')) putFirst('studio-tabs', name);
  return plainFetch(request);
};
