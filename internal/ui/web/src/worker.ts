import { order, outer, type Answer, type Asked } from './order.ts';

addEventListener('message', (e: MessageEvent<Asked>) => {
  const { id, question } = e.data, first = outer(question);
  postMessage({ id, order: first } satisfies Answer);
  postMessage({ id, order: order(question, first) } satisfies Answer);
});
