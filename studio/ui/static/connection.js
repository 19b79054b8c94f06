// How the page reaches the studio, and what it says when it does not. Runs before gradio's scripts.
// Knows: the page's own address, answers that fail, who is logged in. Does not know: what is asked.
(() => {
  // A page without a slash at its end looks for all its parts one folder too high.
  if (!location.pathname.endsWith('/')) {
    location.replace(location.pathname + '/' + location.search + location.hash);
    return;
  }

  // gradio believes the studio where the page lies; behind a proxy only the browser knows.
  const root = new URL('./', location.href).href;
  let config;
  Object.defineProperty(window, 'gradio_config', {
    configurable: true,
    get: () => config,
    set: given => {
      config = given;
      if (given) given.root = root.slice(0, -1);
    },
  });

  // ---- a request that fails says so
  const FIRST_EVENT_SECONDS = 25; // gradio sends something every 15
  const LONGEST_SENTENCE = 400;
  let isLeaving = false;
  addEventListener('pagehide', () => (isLeaving = true));
  addEventListener('pageshow', () => (isLeaving = false));

  let failedRoute = ''; // whose success takes the banner away; empty: anybody's
  const hide = () => document.getElementById('connection-fault')?.remove();
  const show = (sentence, route = '') => {
    failedRoute = route;
    if (isLeaving || !document.body) return;
    let banner = document.getElementById('connection-fault');
    if (banner?.firstChild.textContent === sentence) return;
    banner?.remove();
    banner = document.createElement('div');
    banner.id = 'connection-fault';
    banner.setAttribute('role', 'alert');
    const text = Object.assign(document.createElement('p'), {textContent: sentence});
    const close = Object.assign(document.createElement('button'), {
      type: 'button',
      textContent: 'Close',
      onclick: hide,
    });
    banner.append(text, close);
    document.body.append(banner);
  };

  const describe = async response => {
    const type = response.headers.get('content-type') || '';
    const text = type.startsWith('text/plain') ? await response.clone().text() : '';
    const own = text && text.length < LONGEST_SENTENCE ? text : '';
    if (response.status === 401) return 'You are logged out. Reload this page and log in.';
    if (response.status === 404)
      return (
        'The address of this page does not lead to the studio. If a proxy shows it under a ' +
        `path, start the studio with --root-path ${new URL(root).pathname}`
      );
    if (response.status === 413)
      return own || 'That is too large for the studio, or for a proxy in front of it.';
    if (response.status === 429) return own || 'Too many requests; wait a moment.';
    if (response.status >= 502 && response.status <= 504)
      return (
        own ||
        `A proxy reports that the studio does not answer (${response.status}). ` +
          'Is it still open?'
      );
    if (response.status === 403)
      return own || 'A proxy in front of the studio refused a request (403).';
    return '';
  };

  // An answer that comes in pieces: says so when the first does not come.
  const watch = response => {
    const timer = setTimeout(
      () =>
        show(
          'The studio\'s answers are being held back. If there is a proxy in between, turn off ' +
            'its buffering (proxy_buffering off in nginx).',
        ),
      FIRST_EVENT_SECONDS * 1000,
    );
    const pass = new TransformStream({
      transform(piece, controller) {
        clearTimeout(timer);
        controller.enqueue(piece);
      },
      flush: () => clearTimeout(timer),
    });
    const {status, statusText, headers} = response;
    return new Response(response.body.pipeThrough(pass), {status, statusText, headers});
  };

  const makeAnswer = (status, sentence) =>
    new Response(JSON.stringify({detail: sentence, error: sentence}), {
      status,
      headers: {'content-type': 'application/json'},
    });

  const fetchOriginal = window.fetch.bind(window);
  window.fetch = async (input, options) => {
    const address = new URL(input instanceof Request ? input.url : input, document.baseURI).href;
    if (!address.startsWith(`${root}gradio_api/`)) return fetchOriginal(input, options);
    const isStream = address.startsWith(`${root}gradio_api/queue/data`);
    let response;
    try {
      response = await fetchOriginal(input, options);
    } catch (error) {
      if (error.name !== 'AbortError')
        show(
          'The studio does not answer: it was closed, or the connection is down. Reload this ' +
            'page once it is running again.',
        );
      throw error;
    }
    const route = new URL(address).pathname;
    // How far an upload is nobody knows once it has come: that is no fault of the way here.
    const isProgress = address.startsWith(`${root}gradio_api/upload_progress`);
    const isFault = !response.ok && !(isProgress && response.status === 404);
    const sentence = isFault ? await describe(response) : '';
    const type = response.headers.get('content-type') || '';
    if (sentence) {
      show(sentence, route);
      // gradio reads JSON, and would show how it failed at that
      if (!type.includes('json')) return makeAnswer(response.status, sentence);
    } else if (isStream && response.ok && !type.startsWith('text/event-stream')) {
      show('Something other than the studio answers here: a proxy may want you to log in again.');
    } else {
      if (!failedRoute || failedRoute === route) hide();
      if (isStream && response.ok && response.body) return watch(response);
    }
    return response;
  };

  addEventListener(
    'error',
    event => {
      const address = event.target?.src || event.target?.href || '';
      if (event.target?.matches?.('script, link') && address.startsWith(root))
        show('Part of this page did not load. Reload it; if that does not help, see the log.');
    },
    true,
  );

  // ---- who is logged in may log out
  addEventListener('DOMContentLoaded', () => {
    if (!document.querySelector('meta[name=studio-login]')) return;
    const name = document.querySelector('meta[name=studio-login]').content;
    const add = () => {
      const header = document.querySelector('#head header');
      if (!header || document.getElementById('log-out')) return;
      const form = Object.assign(document.createElement('form'), {
        id: 'log-out',
        method: 'post',
        action: `${root}logout`,
      });
      const button = Object.assign(document.createElement('button'), {
        className: 'do',
        textContent: 'Log out',
        title: `You are logged in as ${name}`,
      });
      form.append(button);
      header.append(form);
    };
    new MutationObserver(add).observe(document.body, {childList: true, subtree: true});
    add();
  });
})();
