'use strict';

const find = (selector, parent = document) => parent.querySelector(selector);
const SIDE = 224; // pixels of a drawing
const PEN = SIDE / 14; // two pixels of an image of 28
// Up to which part of the largest entropy it is called so.
const DOUBT = [[0.3, 'Little doubt'], [0.7, 'Some doubt'], [2, 'Much doubt']];
const classes = []; // of `makeCard`
let model, unlabelled, queries, added = 0;

function make(tag, text = '', name = '') {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = name;
  return element;
}

// A white canvas with black ink; `take` returns its data URL, if it has any.
function makePen(canvas, label) {
  const { height, width } = model.inputs;
  canvas.width = SIDE;
  canvas.height = Math.round((SIDE * height) / width);
  canvas.setAttribute('aria-label', `${label}: area to draw on`);
  const context = canvas.getContext('2d');
  let last = null, isDrawn = false;
  const clear = () => {
    context.fillStyle = 'white';
    context.fillRect(0, 0, canvas.width, canvas.height);
    isDrawn = false;
  };
  const place = (event) => {
    const scale = canvas.width / canvas.clientWidth;
    return [event.offsetX * scale, event.offsetY * scale];
  };
  const draw = (event) => {
    const next = place(event);
    context.lineWidth = PEN;
    context.lineCap = context.lineJoin = 'round';
    context.beginPath();
    context.moveTo(...(last || next));
    context.lineTo(...next);
    context.stroke();
    last = next;
    isDrawn = true;
  };
  canvas.addEventListener('pointerdown', (event) => {
    if (event.button || !event.isPrimary) return;
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    draw(event);
  });
  canvas.addEventListener('pointermove', (event) => {
    if (last && event.isPrimary) draw(event);
  });
  for (const name of ['pointerup', 'pointercancel']) {
    canvas.addEventListener(name, () => { last = null; });
  }
  clear();
  const take = () => (isDrawn ? canvas.toDataURL('image/png') : null);
  return { clear, take };
}

function readFile(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
}

// Where images are drawn, dropped, chosen and removed.
function makeCard(parent, title, isClass) {
  const element = find('#card').content.cloneNode(true).firstElementChild;
  parent.append(element);
  find('legend', element).textContent = title;
  const pen = makePen(find('canvas', element), title);
  const thumbs = find('.thumbs', element);
  const images = () => [...thumbs.querySelectorAll('img')].map((i) => i.src);
  const show = (url, name) => {
    const item = make('li'), image = make('img'), button = make('button', '×');
    image.src = url;
    image.alt = name;
    button.type = 'button';
    button.setAttribute('aria-label', `Remove ${name} of ${title}`);
    button.addEventListener('click', () => {
      item.remove();
      find('.add', element).focus();
    });
    item.append(image, button);
    thumbs.append(item);
  };
  const addDrawing = () => {
    const url = pen.take();
    if (url) show(url, 'drawing');
    pen.clear();
  };
  const addFiles = async (files) => {
    try {
      for (const file of files) show(await readFile(file), file.name);
    } catch (error) {
      tell('', error.message);
    }
  };
  find('.add', element).addEventListener('click', addDrawing);
  find('.clear', element).addEventListener('click', pen.clear);
  find('[type=file]', element).addEventListener('change', (event) => {
    addFiles([...event.target.files]);
    event.target.value = '';
  });
  element.addEventListener('dragover', (event) => {
    event.preventDefault();
    element.classList.add('over');
  });
  for (const name of ['dragleave', 'drop']) {
    element.addEventListener(name, () => element.classList.remove('over'));
  }
  element.addEventListener('drop', (event) => {
    event.preventDefault();
    addFiles([...event.dataTransfer.files]);
  });
  const name = find('[type=text]', element), remove = find('.remove', element);
  const card = { element, name, remove, images, addDrawing };
  if (isClass) {
    name.maxLength = model.most_characters;
    name.value = title.toLowerCase();
    remove.setAttribute('aria-label', `Remove ${title}`);
    remove.addEventListener('click', () => removeClass(card));
  } else {
    find('.name', element).remove();
  }
  return card;
}

function addClass() {
  added += 1;
  classes.push(makeCard(find('#classes'), `Class ${added}`, true));
  limitClasses();
}

function removeClass(card) {
  classes.splice(classes.indexOf(card), 1);
  card.element.remove();
  limitClasses();
  find('#add-class').focus();
}

function limitClasses() {
  find('#add-class').disabled = classes.length >= model.way;
  for (const card of classes) card.remove.disabled = classes.length <= 2;
}

function tell(status, error = '') {
  find('#status').textContent = status;
  find('#error').textContent = error;
}

async function post(path, request) {
  const body = JSON.stringify(request);
  if (body.length > model.most_bytes) {
    throw new Error('The images are too large: remove some, or shrink them.');
  }
  const headers = { 'Content-Type': 'application/json' };
  const response = await fetch(path, { method: 'POST', headers, body })
    .catch(() => { throw new Error('No answer: has the command ended?'); });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function makePrediction(url, names, found) {
  const item = make('li'), image = make('img'), part = make('div');
  image.src = url;
  image.alt = 'image to classify';
  part.append(make('div', found.label, 'verdict'));
  if (found.unknown) part.append(make('p', 'Perhaps none of the classes'));
  found.probabilities.forEach((p, row) => {
    const bar = make('div', '', 'bar'), track = make('div'), fill = make('i');
    fill.style.width = `${100 * p}%`;
    track.append(fill);
    const name = make('span', names[row]);
    name.title = names[row];
    bar.append(name, track, make('span', `${(100 * p).toFixed(1)}%`));
    part.append(bar);
  });
  const most = Math.log(names.length);
  const words = DOUBT.find(([limit]) => found.entropy / most < limit)[1];
  const entropy = `${found.entropy.toFixed(2)} of at most ${most.toFixed(2)}`;
  part.append(make('p', `${words} (entropy ${entropy})`));
  item.append(image, part);
  return item;
}

// Draws one filter [h][w][C]: gray is 0, white the largest weight.
function makeFilter(filter, most) {
  const canvas = make('canvas');
  canvas.width = filter[0].length;
  canvas.height = filter.length;
  const context = canvas.getContext('2d');
  const picture = context.createImageData(canvas.width, canvas.height);
  filter.flat().forEach((weights, pixel) => {
    for (let c = 0; c < 3; c += 1) {
      const weight = weights[c % weights.length];
      picture.data[4 * pixel + c] = 127.5 * (1 + weight / most);
    }
    picture.data[4 * pixel + 3] = 255;
  });
  context.putImageData(picture, 0, 0);
  return canvas;
}

function showPredictions(answer, shown) {
  find('#predictions').replaceChildren(
    ...answer.predictions.map((found, row) =>
      makePrediction(shown[row], answer.classes, found)),
  );
  const most = Math.max(...answer.filters.flat(3).map(Math.abs), 1e-12);
  find('#filters').replaceChildren(
    ...answer.filters.map((filter) => makeFilter(filter, most)),
  );
  find('#filters-part').hidden = !answer.filters.length;
  find('#report').replaceChildren();
  find('#results').hidden = false;
}

function describeReport(report) {
  const { temperature, adaptation: { gate } } = report;
  const { accuracy, ci95, images, problem } = report.leave_one_out;
  const percent = (value) => `${(100 * value).toFixed(0)}%`;
  const interval = ci95 && ci95.map(percent).join(' to ');
  const lines = [
    accuracy === null
      ? `The accuracy is not known: ${problem}.`
      : `Left out one by one, ${percent(accuracy)} of ${images} examples are `
        + `classified correctly (95% interval ${interval}).`,
    `Temperature ${temperature.toFixed(2)}: above 1 it lowers confidences.`,
  ];
  if (gate !== undefined) {
    const trust = gate < 0.5 ? 'hardly trusted' : 'trusted';
    lines.push(
      `Steps on unlabelled images: ${trust} (gate ${gate.toFixed(2)} of 1).`,
    );
  }
  return lines;
}

async function classify() {
  [...classes, unlabelled, queries].forEach((card) => card.addDrawing());
  const shown = queries.images();
  const request = {
    classes: classes.map((c) => ({ name: c.name.value, images: c.images() })),
    unlabelled: unlabelled.images(),
    queries: shown,
  };
  if (!shown.length) {
    return tell('', 'Draw or choose an image to classify.');
  }
  const start = Date.now(), button = find('#classify');
  const timer = setInterval(() => {
    const seconds = Math.round((Date.now() - start) / 1000);
    find('#seconds').textContent = `${seconds} s`;
  }, 1000);
  button.disabled = true;
  tell('Adapting. A new number of images is compiled first, up to a minute.');
  try {
    showPredictions(await post('/classify', request), shown);
    find('#results-title').focus();
    tell('Predictions are below. Checking the classifier on its examples.');
    const lines = describeReport(await post('/report', request));
    find('#report').replaceChildren(...lines.map((line) => make('li', line)));
    tell('Done.');
  } catch (error) {
    tell('', error.message);
  } finally {
    clearInterval(timer);
    find('#seconds').textContent = '';
    button.disabled = false;
  }
}

async function start() {
  model = await (await fetch('/model')).json();
  const { height, width, channels } = model.inputs;
  const kind = channels === 1 ? 'gray' : 'colour';
  const data = model.data ? ` trained on ${model.data}` : '';
  find('#model').textContent = `${model.learner}${data}; images of `
    + `${height} × ${width}, ${kind}; 2 to ${model.way} classes`;
  unlabelled = makeCard(find('#unlabelled'), 'Images without labels', false);
  queries = makeCard(find('#queries'), 'Images to classify', false);
  addClass();
  addClass();
  find('#add-class').addEventListener('click', addClass);
  find('#classify').addEventListener('click', classify);
}

// A file dropped beside a card must not replace the page.
for (const name of ['dragover', 'drop']) {
  addEventListener(name, (event) => event.preventDefault());
}
start().catch((error) => tell('', error.message));
