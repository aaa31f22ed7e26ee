'use strict';
// The address: what the form says, and what else is on show

const $ = id => document.getElementById(id), form = $('ask'), box = $('q'), list = $('results'), panel = $('cell');
const note = $('note'), ready = $('ready'), names = ['path', 'cell', 'like', 'before', 'after'];
let kept = {}, turn = new AbortController(), opening = new AbortController(), waiting = null, touched = false;

function asked(extra = {}) { // the view, as it stands in the address
  const state = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value.trim()) state.set(name, value.trim());
  for (const [name, value] of Object.entries({...kept, ...extra})) if (value) state.set(name, value);
  return state;
}
function readAddress(search = location.search) {
  const state = new URLSearchParams(search);
  for (const field of form.elements) if (field.name)
    field.type === 'checkbox' ? field.checked = state.has(field.name) : field.value = state.get(field.name) ?? '';
  kept = Object.fromEntries(names.filter(name => state.get(name)).map(name => [name, state.get(name)]));
}
function remember(push) {
  const text = String(asked()), address = text ? '/?' + text : '/';
  if (address !== location.pathname + location.search) history[push ? 'pushState' : 'replaceState'](null, '', address);
  document.title = box.value ? box.value + ' · semsearch' : 'semsearch';
}

// A search: the first answer at once, the second behind it

const pause = (ms, signal) => new Promise((done, stop) => {
  const timer = setTimeout(done, ms);
  signal.addEventListener('abort', () => { clearTimeout(timer); stop(new DOMException('', 'AbortError')); });
});
async function get(address, signal) {
  const answer = await fetch(address, {signal}), part = document.createElement('template');
  part.innerHTML = await answer.text();
  return {part: part.content, note: decodeURIComponent(answer.headers.get('X-Note') ?? ''), ok: answer.ok};
}
async function search(delay = 0, push = false) {
  turn.abort(); turn = new AbortController();
  const signal = turn.signal; waiting = null; ready.hidden = true; touched = false;
  try {
    await pause(delay, signal); remember(push);
    const first = await get('/results?' + asked(), signal);
    list.replaceChildren(first.part); note.textContent = first.note; list.scrollTop = 0;
    if (!first.ok || !list.querySelector('li') || kept.like) return;
    list.setAttribute('aria-busy', 'true');
    await pause(250, signal);
    const second = await get('/results?' + asked({closely: 1}), signal);
    if (second.ok) inHand() ? offer(second) : settle(second);
  } catch (error) { if (error.name !== 'AbortError') note.textContent = 'The server does not answer.'; }
  finally { if (!signal.aborted) list.removeAttribute('aria-busy'); }
}

// A new order, never under somebody's hand

const rows = () => [...list.querySelectorAll('li')], calm = matchMedia('(prefers-reduced-motion: reduce)');
const reading = () => document.body.classList.contains('reading');
const inHand = () => touched || list.scrollTop > 0 || list.contains(document.activeElement) || reading();
for (const what of ['pointermove', 'pointerdown', 'wheel', 'touchmove']) list.addEventListener(what, event => {
  if (what !== 'pointermove' || event.movementX || event.movementY) touched = true;
}, {passive: true});
function offer(answer) { waiting = answer; ready.hidden = false; }
function settle({part, note: text}) {
  const before = new Map(rows().map(row => [row.dataset.key, row.getBoundingClientRect().top]));
  const held = document.activeElement.closest?.('#results li')?.dataset.key;
  list.replaceChildren(part); note.textContent = text; waiting = null; ready.hidden = true;
  for (const row of rows()) {
    if (row.dataset.key === held) row.querySelector('a.hit').focus();
    const from = before.get(row.dataset.key), by = from - row.getBoundingClientRect().top;
    if (calm.matches) continue;
    if (from === undefined) row.animate([{opacity: 0}, {opacity: 1}], 300);
    else if (by) row.animate([{transform: `translateY(${by}px)`}, {transform: 'none'}],
      {duration: 300, easing: 'ease-out'});
  }
}
ready.addEventListener('click', () => { if (waiting) { settle(waiting); rows()[0]?.querySelector('a.hit').focus(); } });

// A cell among its neighbours

async function openCell(push = true) {
  if (push) remember(true);
  opening.abort(); opening = new AbortController();
  const answer = await get('/cell?' + asked(), opening.signal).catch(error => {
    if (error.name !== 'AbortError') note.textContent = 'The server does not answer.';
  });
  if (!answer) return;
  panel.replaceChildren(answer.part); document.body.classList.add('reading'); markWords();
  panel.querySelector('h2')?.focus({preventScroll: true}); showWanted();
}
async function showWanted() { // once the pictures above it have their height
  await Promise.allSettled([...panel.querySelectorAll('img')].map(picture => picture.decode()));
  panel.querySelector('.wanted')?.scrollIntoView({block: 'center'});
}
function closeCell(push = true) {
  opening.abort();
  const {path, cell, before, after, ...rest} = kept; kept = rest;
  document.body.classList.remove('reading'); panel.replaceChildren(); if (push) remember(true);
  const row = rows().find(row => row.dataset.key.startsWith(`${path}#${cell}#`));
  (row?.querySelector('a.hit') ?? box).focus();
}
function markWords() {
  if (!window.Highlight) return;
  const words = panel.querySelector('[data-words]')?.dataset.words ?? '', found = new Highlight();
  const wanted = words.split(' ').filter(Boolean);
  if (wanted.length) {
    const pattern = new RegExp(`(?<![\\p{L}\\p{N}_])(${wanted.join('|')})[\\p{L}\\p{N}_]*`, 'giu');
    const texts = document.createTreeWalker(panel, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) for (const hit of texts.currentNode.data.matchAll(pattern)) found.add(
      new StaticRange({startContainer: texts.currentNode, startOffset: hit.index,
        endContainer: texts.currentNode, endOffset: hit.index + hit[0].length}));
  }
  CSS.highlights.set('words', found);
}

// Links inside the page

document.addEventListener('click', event => {
  const link = event.target.closest('a.hit, a.like, a.more'), button = event.target.closest('button');
  if (button?.id === 'close') return closeCell();
  if (button?.id === 'copy') return navigator.clipboard?.writeText(button.dataset.copy).then(
    () => { button.textContent = 'Copied'; }, () => { button.textContent = button.dataset.copy; });
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  const state = new URLSearchParams(link.search);
  if (link.matches('.like')) {
    if (reading()) closeCell(false);
    box.value = ''; kept = {like: state.get('like')};
    return search(0, true).then(() => rows()[0]?.querySelector('a.hit').focus());
  }
  for (const name of names.filter(name => name !== 'like')) kept[name] = state.get(name);
  openCell();
});
form.addEventListener('submit', event => { event.preventDefault(); search(0, true); });
form.addEventListener('input', event => {
  if (event.target === box) delete kept.like;
  search(event.target === box ? 60 : 0);
});
addEventListener('popstate', () => { readAddress(); kept.path ? openCell(false) : closeCell(false); search(); });

// Keys: letters only where nobody is typing

function step(by) {
  const hits = rows().map(row => row.querySelector('a.hit'));
  const at = hits.indexOf(document.activeElement.closest?.('li')?.querySelector('a.hit'));
  (hits[at + by] ?? (at + by < 0 ? box : hits[at]))?.focus();
}
const keys = {
  '/': () => box.focus(), r: () => ready.hidden || ready.click(),
  e: () => { form.elements.explain.click(); },
  m: () => (reading() ? panel : document.activeElement.closest('li'))?.querySelector('a.like')?.click(),
  j: () => step(1), k: () => step(-1), '?': () => { $('keys').open = !$('keys').open; $('keys').scrollIntoView(); },
};
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches('input, select, textarea'), inList = list.contains(event.target);
  let act = typing ? null : keys[event.key];
  if (event.key === 'ArrowDown' && (event.target === box || inList)) act = () => step(1);
  if (event.key === 'ArrowUp' && inList) act = () => step(-1);
  if (event.key === 'Escape') act = () => reading() ? closeCell() : (box.focus(), box.select());
  if (act) { event.preventDefault(); act(); }
});
async function about() {
  const {part} = await get('/status'); $('about').replaceChildren(part);
  setTimeout(() => about().catch(() => {}), document.querySelector('#about .busy') ? 1000 : 30000);
}
readAddress(); if (new URLSearchParams(location.search).has('token')) remember(false); // the cookie has it now
markWords(); about().catch(() => {}); showWanted();
if (box.value || kept.like) search();
