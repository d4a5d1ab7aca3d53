import { order, type Question } from './order.ts';

addEventListener('message', (e: MessageEvent<Question>) => postMessage(order(e.data)));
