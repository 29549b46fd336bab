/** Draws a heatmap of statuses, its axes and its cursor on a canvas. */

import type { Camera } from './camera';
import { paint, palette, parse, shrink, type Cells } from './cells';
import { ticks as tickTexts } from './format';
import { STATUSES, statusOf, type Mark } from './statuses';
import { ticksOf, type Tick } from './ticks';
import type { Axis } from './types';

export interface Scene {
  camera: Camera;
  x: Axis;
  y: Axis | null;
  bin: [number, number];
  cursor: [number, number] | null;
  focused: boolean;
}

/** Where the map itself is on the canvas, in CSS pixels. */
export interface Frame {
  left: number;
  top: number;
  width: number;
  height: number;
}

interface Theme {
  pixels: Uint32Array;
  text: string;
  faint: string;
  line: string;
  ground: string;
  mark: string;
  focus: string;
  font: string;
}

type Image = HTMLCanvasElement;

const IMAGES = 6;
/** Words on the x axis are cut to no less than this, in pixels. */
const SLOT = 36;
/** Cells of at least this many pixels have a gap between them, and marks. */
const GAP = 5;
const MARK = 9;
const TICK = 4;
const BOTTOM = 36;
const RIGHT = 10;
const EDGE = 4;
const TOP = 6;
/** The labels of the y axis take no more than this share of the width. */
const SIDE = 0.3;

export class Painter {
  private readonly context: CanvasRenderingContext2D | null;
  private theme: Theme | null = null;
  private cells: Cells | null = null;
  /** The map as pixels, by how many cells one pixel stands for; the last few. */
  private readonly images = new Map<string, Image>();
  private width = 0;
  private height = 0;
  private ratio = 1;

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.context = canvas.getContext('2d');
  }

  get size(): [number, number] {
    return this.cells ? [this.cells.width, this.cells.height] : [1, 1];
  }

  get known(): Cells | null {
    return this.cells;
  }

  setCells(cells: Cells | null): void {
    this.cells = cells;
    this.images.clear();
  }

  /** Fit the drawing to the element and to the pixels of the screen. */
  resize(width: number, height: number, ratio: number): void {
    this.width = width;
    this.height = height;
    this.ratio = ratio;
    this.canvas.width = Math.max(Math.round(width * ratio), 1);
    this.canvas.height = Math.max(Math.round(height * ratio), 1);
  }

  /** Read the colours again; a theme may have changed. */
  restyle(): void {
    const style = getComputedStyle(this.canvas);
    const read = (name: string, otherwise: string) =>
      style.getPropertyValue(name).trim() || otherwise;
    this.theme = {
      pixels: palette(STATUSES.map(status => parse(read(status.colour, '#888888')))),
      text: read('--mce-ink', '#333333'),
      faint: read('--mce-ink-2', '#666666'),
      line: read('--mce-rule', '#cccccc'),
      ground: read('--mce-ground', '#ffffff'),
      mark: read('--mce-mark', '#ffffff'),
      focus: read('--mce-focus', '#1976d2'),
      font: `11px ${style.fontFamily || 'sans-serif'}`
    };
    this.images.clear();
  }

  frame(scene: Pick<Scene, 'y'>): Frame {
    const left = scene.y ? this.side(scene.y) : RIGHT;
    return {
      left,
      top: TOP,
      width: Math.max(this.width - left - RIGHT, 1),
      height: Math.max(this.height - TOP - BOTTOM, 1)
    };
  }

  draw(scene: Scene): void {
    const { context, cells } = this;
    if (!context || this.width === 0) {
      return;
    }
    if (!this.theme) {
      this.restyle();
    }
    const theme = this.theme!;
    const frame = this.frame(scene);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height);
    if (cells) {
      this.drawCells(context, scene, frame, cells, theme);
    }
    context.strokeStyle = theme.line;
    context.lineWidth = 1;
    context.strokeRect(frame.left - 0.5, frame.top - 0.5, frame.width + 1, frame.height + 1);
    this.drawAxes(context, scene, frame, theme);
    if (cells && scene.cursor) {
      this.drawCursor(context, scene, frame, theme);
    }
  }

  private drawCells(
    context: CanvasRenderingContext2D,
    { camera }: Scene,
    frame: Frame,
    cells: Cells,
    theme: Theme
  ): void {
    const crowd = (shown: number, pixels: number) =>
      Math.max(Math.ceil(shown / (pixels * this.ratio) - 0.01), 1);
    const across = crowd(camera.across, frame.width);
    const up = crowd(camera.up, frame.height);
    const image = this.image(cells, across, up, theme);
    context.save();
    context.beginPath();
    context.rect(frame.left, frame.top, frame.width, frame.height);
    context.clip();
    context.imageSmoothingEnabled = false;
    context.drawImage(
      image,
      camera.left / across,
      image.height - (camera.bottom + camera.up) / up,
      camera.across / across,
      camera.up / up,
      frame.left,
      frame.top,
      frame.width,
      frame.height
    );
    const cellWidth = frame.width / camera.across;
    const cellHeight = frame.height / camera.up;
    if (Math.min(cellWidth, cellHeight) >= GAP) {
      this.drawGaps(context, camera, frame, theme);
      if (Math.min(cellWidth, cellHeight) >= MARK) {
        this.drawMarks(context, camera, frame, cells, theme);
      }
    }
    context.restore();
  }

  private image(cells: Cells, across: number, up: number, theme: Theme): Image {
    const key = `${across} ${up}`;
    let image = this.images.get(key);
    if (!image) {
      const drawn = across === 1 && up === 1 ? cells : shrink(cells, across, up);
      image = document.createElement('canvas');
      image.width = drawn.width;
      image.height = drawn.height;
      const data = paint(drawn, theme.pixels);
      image.getContext('2d')!.putImageData(new ImageData(data, drawn.width, drawn.height), 0, 0);
      if (this.images.size >= IMAGES) {
        this.images.delete(this.images.keys().next().value!);
      }
      this.images.set(key, image);
    }
    return image;
  }

  private drawGaps(
    context: CanvasRenderingContext2D,
    camera: Camera,
    frame: Frame,
    theme: Theme
  ): void {
    context.strokeStyle = theme.ground;
    context.lineWidth = 1;
    context.beginPath();
    for (let column = Math.ceil(camera.left); column < camera.left + camera.across; column++) {
      const x =
        Math.round(frame.left + ((column - camera.left) * frame.width) / camera.across) - 0.5;
      context.moveTo(x, frame.top);
      context.lineTo(x, frame.top + frame.height);
    }
    for (let row = Math.ceil(camera.bottom); row < camera.bottom + camera.up; row++) {
      const y =
        Math.round(frame.top + frame.height - ((row - camera.bottom) * frame.height) / camera.up) -
        0.5;
      context.moveTo(frame.left, y);
      context.lineTo(frame.left + frame.width, y);
    }
    context.stroke();
  }

  private drawMarks(
    context: CanvasRenderingContext2D,
    camera: Camera,
    frame: Frame,
    cells: Cells,
    theme: Theme
  ): void {
    const width = frame.width / camera.across;
    const height = frame.height / camera.up;
    const radius = Math.min(width, height, 26) * 0.24;
    context.strokeStyle = theme.mark;
    context.fillStyle = theme.mark;
    context.lineWidth = Math.max(radius * 0.4, 1.2);
    const right = Math.min(Math.ceil(camera.left + camera.across), cells.width);
    const top = Math.min(Math.ceil(camera.bottom + camera.up), cells.height);
    for (let row = Math.floor(camera.bottom); row < top; row++) {
      for (let column = Math.floor(camera.left); column < right; column++) {
        const mark = statusOf(cells.status[row * cells.width + column])?.mark ?? 'none';
        if (mark !== 'none') {
          drawMark(
            context,
            mark,
            frame.left + (column + 0.5 - camera.left) * width,
            frame.top + frame.height - (row + 0.5 - camera.bottom) * height,
            radius
          );
        }
      }
    }
  }

  private drawCursor(
    context: CanvasRenderingContext2D,
    scene: Scene,
    frame: Frame,
    theme: Theme
  ): void {
    const { camera, cursor } = scene;
    const width = frame.width / camera.across;
    const height = frame.height / camera.up;
    const x = frame.left + (cursor![0] - camera.left) * width;
    const y = frame.top + frame.height - (cursor![1] + 1 - camera.bottom) * height;
    // Cells smaller than a few pixels get a frame around them that can be seen.
    const grow = Math.max(0, (6 - Math.min(width, height)) / 2);
    context.lineWidth = 3;
    context.strokeStyle = theme.ground;
    context.strokeRect(x - grow, y - grow, width + 2 * grow, height + 2 * grow);
    context.lineWidth = 1.5;
    context.strokeStyle = scene.focused ? theme.focus : theme.text;
    context.strokeRect(x - grow, y - grow, width + 2 * grow, height + 2 * grow);
  }

  private drawAxes(
    context: CanvasRenderingContext2D,
    scene: Scene,
    frame: Frame,
    theme: Theme
  ): void {
    const { camera, x, y, bin } = scene;
    const bottom = frame.top + frame.height;
    context.font = theme.font;
    context.fillStyle = theme.faint;
    context.strokeStyle = theme.line;
    context.lineWidth = 1;
    context.beginPath();

    // Words may be cut; numbers may not.
    const slot = frame.width / camera.across - 8;
    const cut = x.kind !== 'number' && slot >= SLOT;
    const most = cut ? Infinity : Math.floor(frame.width / (this.widest(x) + 14));
    const across = ticksOf(x, bin[0], camera.left, camera.across, most);
    const acrossTexts = tickTexts(across.map(textOf), x.kind).map(text =>
      cut ? this.fitted(text, slot) : text
    );
    context.textBaseline = 'top';
    across.forEach((tick, i) => {
      const at =
        Math.round(frame.left + ((tick.place - camera.left) * frame.width) / camera.across) + 0.5;
      context.moveTo(at, bottom + 1);
      context.lineTo(at, bottom + 1 + TICK);
      // At the ends a centred label would leave the canvas.
      const half = context.measureText(acrossTexts[i]).width / 2;
      context.textAlign =
        at - half < EDGE ? 'left' : at + half > this.width - EDGE ? 'right' : 'center';
      const text =
        context.textAlign === 'left'
          ? EDGE
          : context.textAlign === 'right'
            ? this.width - EDGE
            : at;
      context.fillText(acrossTexts[i], text, bottom + TICK + 3);
    });

    if (y) {
      const up = ticksOf(y, bin[1], camera.bottom, camera.up, Math.floor(frame.height / 18));
      const upTexts = tickTexts(up.map(textOf), y.kind);
      context.textBaseline = 'middle';
      context.textAlign = 'right';
      up.forEach((tick, i) => {
        const at =
          Math.round(bottom - ((tick.place - camera.bottom) * frame.height) / camera.up) + 0.5;
        context.moveTo(frame.left - 1, at);
        context.lineTo(frame.left - 1 - TICK, at);
        context.fillText(upTexts[i], frame.left - TICK - 4, at, frame.left - TICK - 20);
      });
    }
    context.stroke();

    context.fillStyle = theme.text;
    context.textAlign = 'center';
    context.textBaseline = 'alphabetic';
    context.fillText(
      this.fitted(x.name, frame.width),
      frame.left + frame.width / 2,
      this.height - 5
    );
    if (y) {
      context.save();
      context.translate(11, frame.top + frame.height / 2);
      context.rotate(-Math.PI / 2);
      context.fillText(this.fitted(y.name, frame.height), 0, 0);
      context.restore();
    }
  }

  /** Room for the labels of the y axis: the same at every zoom, so that the map stays where it is. */
  private side(axis: Axis): number {
    return Math.min(Math.max(this.widest(axis) + TICK + 24, 40), Math.max(this.width * SIDE, 40));
  }

  private widest(axis: Axis): number {
    const { context, theme } = this;
    if (!context) {
      return 0;
    }
    context.font = theme?.font ?? '11px sans-serif';
    const some = axis.labels.filter((_, i) => i % Math.ceil(axis.labels.length / 65) === 0);
    return Math.max(...tickTexts(some, axis.kind).map(text => context.measureText(text).width), 8);
  }

  private fitted(text: string, width: number): string {
    const { context } = this;
    let shown = text;
    while (shown.length > 1 && context!.measureText(shown).width > width) {
      shown = `${shown.slice(0, -2)}…`;
    }
    return shown;
  }
}

function textOf(tick: Tick): string {
  return tick.text;
}

/** One mark, centred. */
function drawMark(
  context: CanvasRenderingContext2D,
  mark: Mark,
  x: number,
  y: number,
  r: number
): void {
  context.beginPath();
  switch (mark) {
    case 'cross':
      context.moveTo(x - r, y - r);
      context.lineTo(x + r, y + r);
      context.moveTo(x - r, y + r);
      context.lineTo(x + r, y - r);
      break;
    case 'bar':
      context.moveTo(x - r, y);
      context.lineTo(x + r, y);
      break;
    case 'slash':
      context.moveTo(x - r, y + r);
      context.lineTo(x + r, y - r);
      break;
    case 'clock':
      context.moveTo(x, y - r);
      context.lineTo(x, y);
      context.lineTo(x + r, y);
      break;
    case 'ring':
      context.arc(x, y, r * 0.8, 0, 2 * Math.PI);
      break;
    case 'dot':
      context.arc(x, y, r * 0.5, 0, 2 * Math.PI);
      context.fill();
      return;
    case 'none':
      return;
  }
  context.stroke();
}
